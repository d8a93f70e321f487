"""Families of bad files: each draws one file from a random generator.

The same generator state, the same file.
"""

from __future__ import annotations

import json
import pickle
import pickletools
import struct
from collections.abc import Callable
from random import Random
from typing import Any

from hardening.healthy import KINDS, archived, healthy, legacy_pickles, members
from hardening.pickling import (
    CALLS,
    GLOBALS,
    OBJECTS,
    PLACES,
    dictionary,
    network,
    number,
    storage,
    tensor,
    text,
)

Drawn = tuple[str, bytes]
"""A file name and a content."""
INTERESTING = [
    0,
    1,
    2,
    7,
    8,
    9,
    63,
    64,
    65,
    127,
    128,
    255,
    256,
    2**15,
    2**16 - 1,
    2**16,
    2**31 - 1,
    2**31,
    2**32 - 1,
]
HUGE = [2**32, 2**40, 2**53, 2**61 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**70, 10**30]
SUFFIXES = [".pt", ".pt", ".bin", ".ckpt", ".pth", ".safetensors", ".pt.optim"]


def some_number(drawn: Random) -> int:
    """A number at which readers stumble, of either sign."""
    value = drawn.choice(INTERESTING + HUGE) + drawn.choice([0, 0, 0, -1, 1])
    return -value if drawn.random() < 0.2 else value


def rarely_many(drawn: Random, few: list[int], many: list[int]) -> int:
    """A count; one in twenty is a large one, since making those takes longer than reading them."""
    return drawn.choice(many if drawn.random() < 0.05 else few)


def _any(drawn: Random) -> Drawn:
    file = healthy(drawn.choice(list(KINDS)))
    return file.name, file.content


def truncated(drawn: Random) -> Drawn:
    """Cut at a boundary of its parts, close to one, or anywhere."""
    file = healthy(drawn.choice(list(KINDS)))
    if drawn.random() < 0.7:
        end = drawn.choice(file.boundaries) + drawn.choice([-8, -2, -1, 0, 0, 1, 2, 8])
    else:
        end = drawn.randrange(len(file.content))
    return file.name, file.content[: max(0, min(end, len(file.content) - 1))]


def flipped(drawn: Random) -> Drawn:
    """Some bits are others: mostly in the descriptions, at the front and at the end."""
    name, content = _any(drawn)
    changed = bytearray(content)
    for _ in range(drawn.choice([1, 1, 1, 2, 4, 16])):
        position = drawn.randrange(
            min(2000, len(content)) if drawn.random() < 0.8 else len(content)
        )
        changed[-1 - position if drawn.random() < 0.4 else position] ^= 1 << drawn.randrange(8)
    return name, bytes(changed)


def wrong_start(drawn: Random) -> Drawn:
    """Another magic number, something in front or behind, or another suffix."""
    name, content = _any(drawn)
    heads = [
        b"PK\x03\x04",
        b"PK\x05\x06",
        b"PK\x07\x08",
        b"\x80\x02",
        b"\x80\x05",
        b"\x1f\x8b\x08",
        b"GGUF",
        b"\x89PNG",
    ]
    heads += [
        b"<!DOCTYPE html>",
        b"Rar!",
        b"7z\xbc\xaf",
        b"\x00" * 8,
        b"\xff" * 8,
        b"{",
        b"version https://git-lfs",
    ]
    head = drawn.choice(heads)
    how = drawn.randrange(5)
    changed = [
        head + content[len(head) :],
        head + content,
        content + head,
        content + content,
        head + drawn.randbytes(drawn.choice([0, 1, 30, 3000])),
    ][how]
    return name.split(".")[0] + drawn.choice(SUFFIXES), changed


def spliced(drawn: Random) -> Drawn:
    """Bytes cut out, doubled, moved, or replaced by numbers that mean something."""
    name, content = _any(drawn)
    changed = bytearray(content)
    for _ in range(drawn.choice([1, 1, 2, 3])):
        start = drawn.randrange(min(3000, len(changed)) if drawn.random() < 0.8 else len(changed))
        length = drawn.choice([1, 1, 2, 4, 8, 30, 46, 200])
        how, wide = drawn.randrange(4), drawn.choice([1, 2, 4, 8])
        if how == 0:
            del changed[start : start + length]
        elif how == 1:
            changed[start:start] = changed[start : start + length]
        elif how == 2:
            changed[start : start + length] = drawn.randbytes(length)
        else:
            value = some_number(drawn) % (1 << 8 * wide)
            changed[start : start + wide] = value.to_bytes(wide, "little")
    return name, bytes(changed)


def pickle_bytes(drawn: Random) -> Drawn:
    """A pickle with other bytes, in a container whose checksums are right."""
    kind = drawn.choice([kind for kind in KINDS if not kind.startswith("safetensors")])
    file = healthy(kind)
    if kind.startswith("legacy"):
        parts = legacy_pickles(file.content)
        which = drawn.choice([0, 1, 2, 3, 3, 3, 3, 4])
        parts[which] = _changed(drawn, parts[which])
        return file.name, b"".join(parts)
    found = members(file.content)
    pickled = next(name for name in found if name.endswith("data.pkl"))
    found[pickled] = _changed(drawn, found[pickled])
    return file.name, archived(found)


def _changed(drawn: Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(drawn.choice([1, 1, 2, 5])):
        at = drawn.randrange(len(changed))
        if drawn.random() < 0.5:
            changed[at] = drawn.choice(OPCODES)
        else:
            width = drawn.choice([0, 1, 1, 2, 9])
            changed[at : at + width] = drawn.randbytes(drawn.choice([0, 1, 1, 3, 9]))
    return bytes(changed)


OPCODES = [ord(opcode.code) for opcode in pickletools.opcodes]
_FIXED: dict[str, int] = {"uint1": 1, "uint2": 2, "int4": 4, "uint4": 4, "uint8": 8, "float8": 8}


def _instruction(drawn: Random) -> bytes:
    """An instruction of any kind with an argument of the right form, most of the time an honest
    one."""
    opcode = drawn.choice(pickletools.opcodes)
    code, kind = opcode.code.encode("latin1"), opcode.arg.name if opcode.arg else ""
    if not kind:
        return code
    if kind in _FIXED:
        small = drawn.random() < 0.8
        value = drawn.randrange(6) if small else some_number(drawn) % (1 << 8 * _FIXED[kind])
        return code + value.to_bytes(_FIXED[kind], "little")
    words = drawn.choice(
        [
            b"os",
            b"system",
            b"0",
            b"12",
            b"-1",
            b"storage",
            b"\xed\xb2\x80",
            b"a" * 300,
            b"True",
            b"1e9",
        ]
    )
    if (
        kind.endswith(("nl", "nl_pair", "nl_noescape_pair", "nl_short", "nl_long", "noescape"))
        or kind == "floatnl"
    ):
        pair = kind.endswith("pair")
        module, name = (
            drawn.choice(GLOBALS).split()
            if drawn.random() < 0.7
            else ("collections", "OrderedDict")
        )
        return code + (f"{module}\n{name}\n".encode() if pair else words + b"\n")
    width = 1 if kind.endswith("1") else 8 if kind.endswith("8") else 4
    claimed = len(words) if drawn.random() < 0.8 else some_number(drawn) % (1 << 8 * width)
    return code + (claimed % (1 << 8 * width)).to_bytes(width, "little") + words


def programs(drawn: Random) -> Drawn:
    """Random programs of every family of instruction, alone or where something belongs."""
    program = b"".join(_instruction(drawn) for _ in range(drawn.choice([1, 2, 3, 5, 10, 40])))
    expression = drawn.choice(
        [lambda p: p, lambda p: p + network(), lambda p: network(extra=((text("name"), p),))]
    )
    return contained(drawn, expression(program))


def gadgets(drawn: Random) -> Drawn:
    """Calls, objects and names that run something in an ordinary unpickler, everywhere in a
    file.
    """
    kind = drawn.randrange(3)
    if kind == 0:
        expression = drawn.choice(list(CALLS.values()))
    elif kind == 1:
        expression = drawn.choice(list(OBJECTS.values()))
    else:
        module, name = drawn.choice(GLOBALS).split()
        expression = f"c{module}\n{name}\n".encode() + drawn.choice(
            [b"", b"(" + text("id") + b"tR", b")\x81", b"]b"]
        )
    if drawn.random() < 0.3:  # framed, or behind a detour through the memo
        expression = drawn.choice(
            [
                b"\x95" + struct.pack("<Q", len(expression)) + expression,
                expression + b"\x940h\x00",
                b"N0" + expression,
            ]
        )
    return contained(drawn, drawn.choice(list(PLACES.values()))(expression))


def contained(drawn: Random, expression: bytes) -> Drawn:
    """An expression in one of torch's containers, or with nothing around it."""
    program = b"\x80" + bytes([drawn.choice([2, 2, 2, 4, 5])]) + expression + b"."
    name = "net" + drawn.choice(SUFFIXES)
    how = drawn.randrange(5)
    if how < 2:
        return name, archived(
            {"archive/data.pkl": program, "archive/data/0": bytes(256), "archive/version": b"3\n"}
        )
    if how == 2:
        return name, program
    parts = [
        pickle.dumps(0x1950A86A20F9469CFC6C, 2),
        pickle.dumps(1001, 2),
        pickle.dumps({"little_endian": True}, 2),
    ]
    parts += [
        b"\x80\x02" + network() + b".",
        pickle.dumps(["0"], 2),
        struct.pack("<q", 64) + bytes(256),
    ]
    parts[3 if how == 3 else drawn.randrange(5)] = program
    return name, b"".join(parts)


def bombs(drawn: Random) -> Drawn:
    """Little that asks for much: memory, time, depth."""
    count = rarely_many(drawn, [10, 1000, 10_000], [50_000, 150_000, 190_000, 1_000_000])
    huge = struct.pack("<Q", drawn.choice([2**31, 2**40, 2**62]))
    pairs = b")" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(60))
    doubled = b"]\x94" + b"".join(
        b"(" + b"h" + bytes([i]) * 1 + (b"h" + bytes([i])) * 9 + b"l\x94" for i in range(40)
    )
    programs_ = [
        b"]" * count + b"a" * (count - 1),
        b")" + b"\x85" * count,
        b"(" * count + b"N",
        b"}" * count,
        b"N" + b"2" * count,
        b"(" + b"N" + b"2" * count + b"t",
        b"]" + b"(" + b"N2" * count + b"e",
        b"Nr\xff\xff\xff\xff0" * min(count, 200_000) + b"N",
        b"N" + b"\x94" * count,
        dictionary((pairs, b"N")),
        pairs,
        doubled,
        dictionary((text("name"), doubled)),
        b"\x95" + huge + b"N",
        b"\x8b" + struct.pack("<i", 2**31 - 1) + b"\xff",
        b"\x8b" + struct.pack("<i", min(count, 100_000)) + b"\x7f" * min(count, 100_000),
        b"L" + b"9" * count + b"L\n",
        b"I" + b"9" * count + b"\n",
        b"F" + b"9" * count + b"\n",
        b"V" + b"\\u1234" * count + b"\n",
        b"\x8d" + huge + b"a",
        b"\x8e" + huge + b"a",
        b"\x96" + huge + b"a",
        text("\U0001f4a3" * min(count, 900_000)) + b"\x94" + b"h\x00" * 1000,
        b"\x80\x04" * count + b"N",
        (b"}" + text("a")) * min(count, 40_000) + b"N" + b"s" * min(count, 40_000),
        b"(" + b"}" * count + b"l",
        b"(" + b"ccollections\nOrderedDict\n)R" * min(count, 60_000) + b"l",
        b"(" + storage() * min(count, 40_000) + b"l",
        dictionary(*((number(i * (2**61 - 1)), b"N") for i in range(min(count, 30_000)))),
        dictionary(*((number(i), b"N") for i in range(min(count, 100_000)))),
        network(extra=tuple((text(f"key {i}"), b"N") for i in range(min(count, 100_000)))),
        network(extra=((text("layer_structure"), b"](" + b"K\x01" * count + b"e"),)),
    ]
    return contained(drawn, drawn.choice(programs_))


def lying_tensors(drawn: Random) -> Drawn:
    """Shapes, strides, offsets and lengths that are not those of the numbers."""

    def several() -> tuple[int, ...]:
        count = drawn.choice([0, 1, 2, 2, 2, 3, 8, 9, 70])
        return tuple(drawn.choice([1, 8, 8, some_number(drawn)]) for _ in range(count))

    kinds = [
        "FloatStorage",
        "FloatStorage",
        "HalfStorage",
        "IntStorage",
        "BoolStorage",
        "ComplexFloatStorage",
    ]
    source = storage(
        drawn.choice(["0", "0", "0", "1", "../0", ""]), some_number(drawn), drawn.choice(kinds)
    )
    offset = drawn.choice([0, 0, some_number(drawn)])
    shape, stride = several(), several()
    if drawn.random() < 0.5:
        shape, stride = drawn.choice([((8, 8), stride), (shape, (8, 1)), ((8, 8), (8, 1))])
    made = tensor(shape, stride, offset, source if drawn.random() < 0.5 else storage())
    return contained(drawn, network(**{drawn.choice(["weight", "bias"]): made}))


HEADER_VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    2**64,
    10**30,
    "",
    "F32",
    "NaN",
    [],
    {},
    [1],
    [[1]],
    float("nan"),
    "\u202e",
]


def safetensors_headers(drawn: Random) -> Drawn:
    """A header whose types, shapes, places or keys are others, with the right length or a wrong
    one."""
    content = healthy(
        drawn.choice([kind for kind in KINDS if kind.startswith("safetensors")])
    ).content
    length = struct.unpack("<Q", content[:8])[0]
    header, rest = json.loads(content[8 : 8 + length]), content[8 + length :]
    for _ in range(drawn.choice([1, 1, 2])):
        _change(drawn, header)
    encoded = json.dumps(header).encode()
    how = drawn.randrange(10)
    if how == 0:
        encoded = encoded[:-1] + b"," + encoded[1:]  # every key twice
    elif how == 1:
        depth = drawn.choice([100, 5000, 100_000])
        encoded = encoded[:-1] + b',"deep":' + b"[" * depth + b"]" * depth + b"}"
    elif how == 2:
        encoded = encoded[:-1] + b',"many":9' + b"9" * drawn.choice([30, 5000, 1_000_000]) + b"}"
    elif how == 3:
        count = rarely_many(drawn, [1000, 10_000], [1_000_000])
        encoded = encoded[:-1] + b"".join(b',"%d":{}' % i for i in range(count)) + b"}"
    elif how == 4:
        encoded = _changed(drawn, encoded)
    claimed = len(encoded) if drawn.random() < 0.8 else some_number(drawn) % 2**64
    return "net.safetensors", struct.pack("<Q", claimed) + encoded + rest[
        : drawn.choice([None, None, -1, 0])
    ]


def _change(drawn: Random, header: dict[str, Any]) -> None:
    name = drawn.choice(list(header))
    how = drawn.randrange(6)
    if how == 0:
        header[
            drawn.choice(
                [
                    "",
                    "8.k.linear.0.weight ",
                    "8.q.linear.0.weight",
                    "-8.k.linear.0.bias",
                    "a" * 5000,
                ]
            )
        ] = header.pop(name)
    elif how == 1:
        header[name] = drawn.choice(HEADER_VALUES)
    elif not isinstance(header[name], dict) or not header[name]:
        header[name] = {}
    else:
        key = drawn.choice(list(header[name]))
        value = header[name][key]
        if isinstance(value, list) and value and how > 2:
            value[drawn.randrange(len(value))] = drawn.choice(
                [*HEADER_VALUES, some_number(drawn), some_number(drawn)]
            )
        else:
            header[name][key] = drawn.choice(HEADER_VALUES)


def legacy_parts(drawn: Random) -> Drawn:
    """A legacy file whose pickles, list of storages or lengths don't fit each other."""
    file = healthy(drawn.choice([kind for kind in KINDS if kind.startswith("legacy")]))
    parts = legacy_pickles(file.content)
    how = drawn.randrange(6)
    if how == 0:
        parts[5] = struct.pack("<Q", some_number(drawn) % 2**64) + parts[5][8:]
    elif how == 1:
        keys = pickle.loads(parts[4])
        drawn.shuffle(keys)
        parts[4] = pickle.dumps(keys[: drawn.choice([None, 1, 0])] * drawn.choice([1, 2, 1000]), 2)
    elif how == 2:
        parts[4] = pickle.dumps(drawn.choice([None, 5, "0", ["x"], [5], [[]], {"0": 1}]), 2)
    elif how == 3:
        parts[drawn.randrange(3)] = pickle.dumps(
            drawn.choice([None, 1002, {}, {"little_endian": False}, "x"]), 2
        )
    elif how == 4:
        del parts[drawn.randrange(6)]
    else:
        parts[5] = parts[5][: drawn.randrange(len(parts[5]))] + bytes(drawn.choice([0, 7, 100_000]))
    return file.name, b"".join(parts)


Family = Callable[[Random], Drawn]
"""Draws a file."""
