"""Pickles written by hand, opcode by opcode: expressions, containers around them, and those that
run something."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

COMMAND = "echo a file ran this"


def text(content: str) -> bytes:
    return b"X" + struct.pack("<I", len(content.encode())) + content.encode()


def number(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key: str = "0", numel: int = 64, kind: str = "FloatStorage") -> bytes:
    return (
        b"("
        + text("storage")
        + f"ctorch\n{kind}\n".encode()
        + text(key)
        + text("cpu")
        + number(numel)
        + b"tQ"
    )


def tensor(
    shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, source: bytes = storage()
) -> bytes:
    arguments = (
        source
        + number(offset)
        + numbers(shape)
        + numbers(stride)
        + b"\x89ccollections\nOrderedDict\n)R"
    )
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


MATRIX, VECTOR = tensor((8, 8), (8, 1)), tensor((8,), (1,))


def dictionary(*items: tuple[bytes, bytes]) -> bytes:
    return b"}(" + b"".join(key + value for key, value in items) + b"u"


def network(
    weight: bytes = MATRIX, bias: bytes = VECTOR, extra: tuple[tuple[bytes, bytes], ...] = ()
) -> bytes:
    """The expression of a whole dictionary, with any expressions in it."""
    state = dictionary((text("linear.0.weight"), weight), (text("linear.0.bias"), bias))
    return dictionary((number(8), b"(" + state + state + b"t"), *extra)


def zipped(path: Path, expression: bytes, members: Mapping[str, bytes] | None = None) -> Path:
    """A zip container around an expression, all checksums right."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + expression + b".")
        for name, content in (
            members or {"archive/data/0": bytes(256), "archive/version": b"3\n"}
        ).items():
            archive.writestr(name, content)
    return path


def legacy(
    path: Path, expression: bytes, head: bytes | None = None, keys: bytes | None = None
) -> Path:
    """A legacy container around an expression."""
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2) if head is None else b"\x80\x02" + head + b"."
    system = pickle.dumps({"protocol_version": 1001, "little_endian": True}, 2)
    listed = pickle.dumps(["0"], 2) if keys is None else b"\x80\x02" + keys + b"."
    numbers = struct.pack("<q", 64) + bytes(256)
    path.write_bytes(
        magic + pickle.dumps(1001, 2) + system + b"\x80\x02" + expression + b"." + listed + numbers
    )
    return path


ARGUMENT = text(COMMAND)
CALLS: dict[str, bytes] = {
    "reduce": b"cos\nsystem\n(" + ARGUMENT + b"tR",
    "reduce, the system's own module": f"c{os.name}\nsystem\n".encode() + ARGUMENT + b"\x85R",
    "stack_global": b"\x8c\x02os\x8c\x06system\x93" + ARGUMENT + b"\x85R",
    "stack_global from memo": b"\x8c\x02os\x940\x8c\x06system\x940h\x00h\x01\x93"
    + ARGUMENT
    + b"\x85R",
    "inst": b"(" + ARGUMENT + b"ios\nsystem\n",
    "obj": b"(cos\nsystem\n" + ARGUMENT + b"o",
    "popen": b"csubprocess\nPopen\n(" + ARGUMENT + b"tR",
    "twice": b"cos\nsystem\n(" + ARGUMENT + b"tR0cos\nsystem\n(" + ARGUMENT + b"tR",
    "eval": b"cbuiltins\neval\n(" + text(f"__import__('os').system('{COMMAND}')") + b"tR",
    "exec": b"cbuiltins\nexec\n(" + text(f"import os; os.system('{COMMAND}')") + b"tR",
    "getattr": b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n("
    + text("os")
    + b"tR"
    + text("system")
    + b"tR"
    + ARGUMENT
    + b"\x85R",
    "map": b"cbuiltins\nlist\n(cbuiltins\nmap\n(cos\nsystem\n(" + ARGUMENT + b"ltRtR",
    "partial": b"cfunctools\npartial\n(cos\nsystem\n" + ARGUMENT + b"tR)R",
}
"""Expressions that really run something when an ordinary unpickler loads them."""
PLACES: dict[str, Callable[[bytes], bytes]] = {
    "alone": lambda call: call,
    "metadata": lambda call: network(extra=((text("name"), call),)),
    "network": lambda call: dictionary((number(8), call)),
    "weight": lambda call: network(weight=call),
    "storage": lambda call: network(weight=tensor((8, 8), (8, 1), source=call)),
    "storage key": lambda call: network(
        weight=tensor(
            (8, 8),
            (8, 1),
            source=b"(" + text("storage") + b"ctorch\nFloatStorage\n" + call + b"NK\x40tQ",
        )
    ),
    "persistent id": lambda call: network(extra=((text("name"), call + b"Q"),)),
    "key": lambda call: dictionary((call, b"N")),
    "thrown away": lambda call: call + b"0" + network(),
    "nested": lambda call: b"(((" + call + b"\x85ltt",
}

GLOBALS = [
    "builtins eval", "builtins exec", "builtins getattr", "builtins setattr", "builtins open", (
        "builtins "
        "__import__"
    ),
    "__builtin__ eval", "os system", "nt system", "posix execv", (
        "subprocess "
        "check_output"
    ), "socket socket",
    "shutil rmtree", "runpy run_path", "pty spawn", "webbrowser open", "importlib import_module", "ctypes CDLL",
    "operator attrgetter", "operator methodcaller", "functools partial", "functools reduce", "types FunctionType",
    "types CodeType", "marshal loads", "pickle loads", "pickle _Unpickler", "_pickle loads", "copyreg _reconstructor",
    "copyreg add_extension", "torch load", "torch.hub load", "torch.jit load", "torch save", "torch.serialization load",
    "torch._utils _rebuild_tensor_v2.__globals__", "torch._utils _import_dotted_name", "torch.storage _load_from_bytes",
    "torch.utils.cpp_extension load", "numpy.core.multiarray _reconstruct", "numpy load",
    "numpy.testing._private.utils runstring",
    "collections OrderedDict.__class__", "collections namedtuple", "_codecs decode", "_codecs lookup", "codecs open",
    "hypernetworks.files.pickles load_plain", "hypernetworks write", "timeit timeit", "cProfile run", "code interact",
    "pathlib Path", "tempfile mkdtemp", "logging.config _resolve", "idlelib.pyshell ModifiedInterpreter", "sys exit",
]  # fmt: skip
"""Names that no weight file needs."""

ORDERED, STATE = b"ccollections\nOrderedDict\n", b"}(" + text("__doc__") + text("changed") + b"u"
OBJECTS: dict[str, bytes] = {
    "newobj": b"ccollections\nOrderedDict\n)\x81",
    "newobj_ex": b"ccollections\nOrderedDict\n)}\x92",
    "inst of a known name": b"(icollections\nOrderedDict\n",
    "obj of a known name": b"(" + ORDERED + b"o",
    "build on a function": ORDERED + STATE + b"b",
    "build on a function, with slots": ORDERED + b"N" + STATE + b"\x86b",
    "build on a rebuilding function": b"ctorch._utils\n_rebuild_tensor_v2\n" + STATE + b"b",
    "build on a dictionary": b"}" + STATE + b"b",
    "build on a list": b"]" + STATE + b"b",
    "build on text": text("a") + STATE + b"b",
    "build on a tensor": MATRIX + STATE + b"b",
    "ext1": b"\x82\x01",
    "ext2": b"\x83\x01\x00",
    "ext4": b"\x84\x01\x00\x00\x00",
    "calling a name": b"ctorch\nFloatStorage\n)R",
    "calling text": text("os.system") + ARGUMENT + b"\x85R",
    "calling a list": b"])R",
    "calling a tensor": MATRIX + b")R",
    "arguments in a list": b"ctorch\nSize\n](K\x01eR",
    "arguments in a dictionary": b"ctorch\nSize\n}R",
}
"""Expressions that build an object or change one."""
