"""Archives with something odd about them, written byte by byte, and contents that mean something
strange."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import torch
from hardening.damage import SUFFIXES, Drawn, rarely_many, some_number
from hardening.pickling import network
from reference import Recipe
from safetensors.torch import save as save_safetensors


@dataclass(frozen=True)
class Member:
    """One member, and what its two headers claim where that is not the truth."""

    name: bytes
    content: bytes
    local_name: bytes | None = None
    method: int = 0
    flags: int = 0
    offset: int | None = None
    size: int | None = None
    compressed_size: int | None = None
    checksum: int | None = None
    extra: bytes = b""
    local_extra: bytes = b""
    version: int = 20


def written(
    members: list[Member], comment: bytes = b"", count: int | None = None, start: int | None = None
) -> bytes:
    """The archive: local headers, table of contents, end."""
    body, table = bytearray(), bytearray()
    for member in members:
        offset = len(body) if member.offset is None else member.offset
        checksum = zlib.crc32(member.content) if member.checksum is None else member.checksum
        sizes = [
            len(member.content) if claimed is None else claimed
            for claimed in (member.compressed_size, member.size)
        ]
        fields = (
            member.version,
            member.flags,
            member.method,
            0,
            33,
            checksum,
            *(size % 2**32 for size in sizes),
        )
        local = member.name if member.local_name is None else member.local_name
        body += b"PK\x03\x04" + struct.pack("<5H3I2H", *fields, len(local), len(member.local_extra))
        body += local + member.local_extra + member.content
        table += b"PK\x01\x02" + struct.pack("<6H3I", 20, *fields)
        table += struct.pack(
            "<5H2I", len(member.name), len(member.extra), 0, 0, 0, 0, offset % 2**32
        )
        table += member.name + member.extra
    total = (len(members) if count is None else count) % 2**16
    place = (len(body) if start is None else start) % 2**32
    end = (
        b"PK\x05\x06"
        + struct.pack("<4H2IH", 0, 0, total, total, len(table), place, len(comment))
        + comment
    )
    return bytes(body + table + end)


NAMES = [
    b"/etc/passwd",
    b"../../x",
    b"archive/../x",
    b"C:\\x",
    b"archive\\data.pkl",
    b"archive/data.pkl",
    b"archive/data/0",
]
NAMES += [
    b"\x00",
    b"archive/data/0\x00",
    b"",
    b"\xff\xfe",
    "архив/data.pkl".encode(),
    b"a" * 60_000,
    b"archive/",
    b"//",
]


def archives(drawn: Random) -> Drawn:
    """A network in an archive with one to three things wrong."""
    members = [
        Member(b"archive/data.pkl", b"\x80\x02" + network() + b"."),
        Member(b"archive/data/0", bytes(256)),
        Member(b"archive/version", b"3\n"),
    ]
    for _ in range(drawn.choice([1, 1, 2, 3])):
        at = drawn.randrange(len(members))
        members[at] = replace(members[at], **_lie(drawn))
        if drawn.random() < 0.2:
            members.insert(
                drawn.randrange(4),
                Member(drawn.choice(NAMES), bytes(drawn.choice([0, 1, 256, 3000]))),
            )
    arguments: dict[str, Any] = {}
    if drawn.random() < 0.2:
        arguments = drawn.choice(
            [{"comment": bytes(60_000)}, {"count": 60_000}, {"start": some_number(drawn)}]
        )
    return "net" + drawn.choice(SUFFIXES), written(members, **arguments)


def _lie(drawn: Random) -> dict[str, Any]:
    zip64 = struct.pack("<HH3Q", 1, 24, *(some_number(drawn) % 2**64 for _ in range(3)))
    return drawn.choice(
        [
            {"name": drawn.choice(NAMES)},
            {"local_name": drawn.choice(NAMES)},
            {"offset": drawn.choice([0, some_number(drawn)])},
            {"size": some_number(drawn)},
            {"compressed_size": some_number(drawn)},
            {
                "size": drawn.choice([0, 100, 2**40]),
                "compressed_size": drawn.choice([0, 100, 2**40]),
            },
            {"size": 2**32 - 1, "compressed_size": 2**32 - 1, "offset": 2**32 - 1, "extra": zip64},
            {
                "extra": drawn.choice(
                    [zip64, zip64[:7], b"\x01\x00\xff\xff", drawn.randbytes(30), bytes(60_000)]
                )
            },
            {"local_extra": drawn.choice([zip64, bytes(60_000)])},
            {"checksum": 1},
            {"method": drawn.choice([1, 8, 9, 12, 14, 93, 99, 65535])},
            {"flags": drawn.choice([1, 8, 32, 64, 0x800, 0x2000, 65535])},
            {"version": drawn.choice([0, 45, 63, 255, 65535])},
        ]
    )


def zip_bombs(drawn: Random) -> Drawn:
    """Compressed to nothing, all members the same bytes, or a great many of them."""
    how = drawn.randrange(4)
    if how == 0:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            which = drawn.choice(["archive/data.pkl", "archive/data/0"])
            for name in ("archive/data.pkl", "archive/data/0"):
                zeros = rarely_many(drawn, [10_000, 1_000_000], [30_000_000])
                archive.writestr(
                    name, b"\x80\x02" + network() + b"." if name != which else b"\0" * zeros
                )
        return "net.pt", buffer.getvalue()
    if how == 1:  # every storage is the same place
        size = drawn.choice([256, 100_000])
        first = [
            Member(b"archive/data.pkl", b"\x80\x02" + network() + b"."),
            Member(b"archive/data/0", bytes(size)),
        ]
        place = len(written(first[:1], start=0)) - 22 - 46 - len(first[0].name)
        more = [
            Member(b"archive/data/%d" % i, b"", size=size, compressed_size=size, offset=place)
            for i in range(1, 500)
        ]
        return "net.pt", written([*first, *more])
    if how == 2:
        count = rarely_many(drawn, [100, 1000], [20_000, 60_000])
        return "net.pt", written([Member(b"archive/data/%d" % i, b"") for i in range(count)])
    pickled = (
        b"\x80\x02"
        + b"N0" * rarely_many(drawn, [1_000, 20_000], [100_000, 3_000_000])
        + network()
        + b"."
    )
    return "net.pt", written(
        [Member(b"archive/data.pkl", pickled), Member(b"archive/data/0", bytes(256))]
    )


STRANGE: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    3,
    1e300,
    float("nan"),
    float("inf"),
    2**70,
    "",
    "linear",
    "True",
    "swish",
]
STRANGE += [
    "glu",
    "threshold",
    "x" * 10_000,
    "\x1b[31m\u202e",
    "\ud800",
    [],
    [1],
    [1, 2, 1],
    [1, 0, 1],
    [1, -1, 1],
    (1, 2, 1),
]
STRANGE += [
    [1, float("nan"), 1],
    [1, 2**70, 1],
    [1, "2", 1],
    {},
    {"a": 1},
    b"bytes",
    [0, 0.3, 0],
    [0, 1.0, 0],
    [0.3] * 999,
]
CLAIMS = [
    "layer_structure",
    "activation_func",
    "is_layer_norm",
    "activate_output",
    "use_dropout",
    "dropout_structure",
]
CLAIMS += [
    "last_layer_dropout",
    "step",
    "name",
    "sd_checkpoint",
    "weight_initialization",
    "enable_sizes",
    "skip_connection",
]
RECIPES = [
    Recipe(),
    Recipe((8, 16), (1, 2, 1), "prelu", True, True, (0, 0.3, 0)),
    Recipe((8,), (1, 2, 2, 1), "softmax", False),
]


def metadata(drawn: Random) -> Drawn:
    """Metadata that say something else than the tensors, or nothing that can be."""
    content = drawn.choice(RECIPES).content()
    for _ in range(drawn.choice([1, 1, 2, 3])):
        content[drawn.choice(CLAIMS)] = drawn.choice(STRANGE)
    return _saved(drawn, content)


def contents(drawn: Random) -> Drawn:
    """Tensors that are no layers, numbers that are none, keys that are too many or of the wrong
    kind."""
    content = drawn.choice(RECIPES).content()
    key, value, fill = (
        list(content[8][0]),
        content[8][drawn.randrange(2)],
        drawn.choice([float("nan"), float("inf"), 0.0]),
    )
    name = drawn.choice(key)
    how = drawn.randrange(10)
    if how == 0:
        value[name] = torch.full_like(value[name], fill)
    elif how == 1:
        value[name] = drawn.choice(
            [value[name].to(torch.int32), value[name].double(), value[name] > 0, value[name][None]]
        )
    elif how == 2:
        value[name] = drawn.choice(
            [
                torch.zeros(()),
                torch.zeros(0, 8),
                torch.zeros(8).expand(16, 8),
                value[name].flatten(),
            ]
        )
    elif how == 3:
        value[
            drawn.choice(
                ["linear.99.weight", "linear.-1.weight", "linear.0.weight\n", "x", "linear.0"]
            )
        ] = value.pop(name)
    elif how == 4:
        content[drawn.choice([0, -8, 16, 10**8, "8", "0008", 8.0, True, None, b"8"])] = content[8]
    elif how == 5:
        content[8] = drawn.choice(
            [None, [], content[8][:1], content[8] * 2, {"k": content[8][0]}, "8", torch.zeros(2)]
        )
    elif how == 6:
        value[name] = drawn.choice([None, 5, "x", [1.0] * 8, value])
    elif how == 7:
        return _many(drawn)
    elif how == 8:
        content = dict.fromkeys(range(1, drawn.choice([2, 30])), content[8])
    else:
        return _saved(
            drawn,
            drawn.choice([None, 5, [], "x", torch.zeros(3), {}, {8: 1}, [content], (content,)]),
        )
    return _saved(drawn, content)


def _many(drawn: Random) -> Drawn:
    """Up to a million keys."""
    count = rarely_many(drawn, [100, 3000], [100_000, 1_000_000])
    content: dict[Any, Any] = RECIPES[0].content()
    return _saved(
        drawn,
        content | dict.fromkeys(range(10**7, 10**7 + count), 0)
        if drawn.random() < 0.5
        else content | {"step": list(range(count))},
    )


def _saved(drawn: Random, content: Any) -> Drawn:
    buffer = io.BytesIO()
    if drawn.random() < 0.15 and isinstance(content, dict) and isinstance(content.get(8), tuple):
        tensors = {
            f"8.{side}.{name}": tensor.contiguous().clone()
            for side, state in zip("kv", content[8], strict=False)
            for name, tensor in state.items()
            if isinstance(tensor, torch.Tensor) and isinstance(name, str)
        }
        plain = {
            str(k): str(v).encode("utf-8", "replace").decode()
            for k, v in content.items()
            if isinstance(k, str)
        }
        return "net.safetensors", save_safetensors(tensors, plain)
    torch.save(content, buffer, _use_new_zipfile_serialization=drawn.random() < 0.6)
    return "net" + drawn.choice(SUFFIXES), buffer.getvalue()
