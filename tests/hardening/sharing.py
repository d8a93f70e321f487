"""Files whose parts are shared: lists of the same lists of the same lists are small in a file, endless as text."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

from hardening.damage import Drawn, contained, rarely_many
from hardening.pickling import (
    MATRIX,
    PLACES,
    VECTOR,
    dictionary,
    network,
    number,
    storage,
    tensor,
    text,
)

METADATA = [
    "layer_structure",
    "activation_func",
    "activate_output",
    "is_layer_norm",
    "dropout_structure",
    "use_dropout",
    "last_layer_dropout",
    "enable_sizes",
    "skip_connection",
    "step",
    "name",
    "sd_checkpoint",
    "sd_checkpoint_name",
    "weight_initialization",
    "optional_info",
    "anything",
]


def put(place: int) -> bytes:
    """Keeps what is on top of the stack in the memo."""
    return b"r" + struct.pack("<I", place)


def get(place: int) -> bytes:
    """Puts what was kept on the stack."""
    return b"j" + struct.pack("<I", place)


def graph(drawn: Random, levels: int, wide: int = 2) -> bytes:
    """The expression of a container whose every level names the one below several times, and sometimes deeper ones."""
    leaf = drawn.choice([text("a" * 8), number(7), b"N", MATRIX, b"]", b"G" + bytes(8)])
    program = leaf + put(0) + b"0"
    for level in range(levels):
        parts = [level if drawn.random() < 0.9 else drawn.randrange(level + 1) for _ in range(wide)]
        names = b"".join(map(get, parts))
        program += _container(drawn, parts, names) + put(level + 1) + b"0"
    return program + get(levels)


def _container(drawn: Random, parts: list[int], names: bytes) -> bytes:
    how = drawn.randrange(4)
    if how == 0:
        return b"](" + names + b"e"
    if how == 1:
        return b"(" + names + b"t"
    start = b"}" if how == 2 else b"ccollections\nOrderedDict\n)R"
    items = b"".join(text(f"key {i}") + get(part) for i, part in enumerate(parts))
    return start + b"(" + items + b"u"


def _call(module: str, name: str, *arguments: bytes) -> bytes:
    return f"c{module}\n{name}\n(".encode() + b"".join(arguments) + b"tR"


def _calls(drawn: Random, made: bytes) -> bytes:
    """Every function that a file may call, with something shared among its arguments."""
    return drawn.choice(
        [
            _call("numpy", "dtype", made),
            _call("numpy.core.multiarray", "scalar", made, made),
            _call("numpy.core.multiarray", "scalar", _call("numpy", "dtype", text("f8")), made),
            _call("numpy._core.multiarray", "scalar", _call("numpy", "dtype", made), text("a")),
            _call("_codecs", "encode", made, made),
            _call("torch", "Size", made),
            _call("collections", "OrderedDict", made),
            _call("torch._utils", "_rebuild_parameter", made, made, made),
            _call("torch._utils", "_rebuild_tensor_v2", made, made, made, made),
            _call("torch._utils", "_rebuild_tensor", storage(), number(0), made, made),
            made + b")R",
            made + b"\x85R",
            b"(" + text("storage") + made + text("0") + text("cpu") + number(4) + made + b"tQ",
            b"(" + made + made + made + made + made + b"tQ",
            made + b"Q",
            dictionary((made, b"N")),
            b"}" + made + made + b"s",
            made + made + b"b",
            made + made + b"a",
        ]
    )


def _many_widths(drawn: Random) -> bytes:
    """One dictionary, or one pair, under many widths."""
    many = rarely_many(drawn, [2, 6, 33, 300], [3000, 20_000])
    keys = drawn.choice([2, 10, 500, 5000])
    state = dictionary(
        *((text(f"linear.{i}.weight"), MATRIX if not i else b"N") for i in range(keys))
    )
    pair = state + put(1) + get(1) + b"\x86" + put(2) + b"0"
    return pair + b"}(" + b"".join(number(i + 1) + get(2) for i in range(many)) + b"u"


def _long_keys(drawn: Random) -> bytes:
    """Long texts that are equal and not the same: each look-up compares them."""
    size, many = drawn.choice([10, 2000, 1_000_000]), rarely_many(drawn, [10, 1000], [60_000])
    first, second = (text("a" * size) + put(i) + b"0" for i in range(2))
    if drawn.random() < 0.5:
        return first + second + b"}(" + (get(0) + b"N" + get(1) + b"N") * many + b"u"
    made = b"".join(
        text(f"linear.{i}.weight") + tensor((8, 8), (8, 1), 0, _stored(get(i % 2)))
        for i in range(min(many, 3000))
    )
    return first + second + b"}(" + number(8) + b"(}(" + made + b"u" + get(0) + b"tu"


def _stored(key: bytes) -> bytes:
    huge = b"\x8b" + struct.pack("<i", 300) + b"\x7f" * 300
    return b"(" + text("storage") + b"ctorch\nFloatStorage\n" + key + text("cpu") + huge + b"tQ"


def _in_metadata(drawn: Random, made: bytes) -> bytes:
    chosen = drawn.sample(METADATA, drawn.choice([1, 2, 5]))
    return network(extra=tuple((text(key), made) for key in chosen))


def _in_networks(drawn: Random, made: bytes) -> bytes:
    """In the place of a pair, a network or a tensor."""
    state = dictionary((text("linear.0.weight"), MATRIX), (text("linear.0.bias"), VECTOR))
    return drawn.choice(
        [
            dictionary((number(8), made)),
            dictionary((number(8), b"(" + made + made + b"t")),
            dictionary((number(8), b"(" + state + made + b"t")),
            network(weight=made),
            network(bias=made),
            network(weight=tensor((8, 8), (8, 1), source=made)),
        ]
    )


def shared_parts(drawn: Random) -> Drawn:
    """Graphs of shared containers everywhere in a file, and parts that many others name."""
    made = graph(drawn, drawn.choice([3, 10, 25, 60, 200]), drawn.choice([2, 2, 3, 9]))
    expressions: list[Callable[[], bytes]] = [
        lambda: made,
        lambda: drawn.choice(list(PLACES.values()))(made),
        lambda: drawn.choice(list(PLACES.values()))(_calls(drawn, made)),
        lambda: _in_metadata(drawn, made),
        lambda: _in_metadata(drawn, _calls(drawn, made)),
        lambda: _in_networks(drawn, made),
        lambda: _many_widths(drawn),
        lambda: _long_keys(drawn),
    ]
    return contained(drawn, drawn.choice(expressions)())
