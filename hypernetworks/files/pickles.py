"""An unpickler that can build plain containers and tensors and nothing else.

A pickle is a program. This unpickler never calls what a file names: for the few globals that
weight files need, it calls harmless substitutes from the table below, and it refuses every other
way to call something. torch's own ``weights_only`` loading has the same aim. It isn't used, because
the versions that webuis run (2.1 to 2.5) have a known vulnerability (CVE-2025-32434), no limits on
time and memory, and refuse harmless numpy scalars, and because webuis replace ``torch.load``.
"""

from __future__ import annotations

import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, NoReturn

import torch

from ..errors import (
    FileCorruptError,
    FileError,
    FileUnsafeError,
    NotAHypernetworkError,
    printable,
)

STORAGE_DTYPES: dict[str, torch.dtype] = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


LONGEST_PROGRAM = 200_000
"""Most instructions of a pickle. SDXL's checkpoint has fewer, a network some thousands; this many
take half a second.
"""
LONGEST_KEY = 1000
"""Most characters of a key or a storage's name; comparing keys of megabytes could take minutes."""
_LONGEST_NUMBER = 100
"""Most characters of a number that is written as text: older Pythons need 3 s for a million digits,
and 12 s for two million.
"""


@dataclass(frozen=True)
class StoragePointer:
    """A storage that a pickle names; the archive knows where its data is."""

    key: str
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True)
class TensorPointer:
    """A tensor that a pickle describes, without its data."""

    storage: StoragePointer
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class _Name:
    """A global that stands for itself, such as a storage class or a dtype."""

    name: str


def _tensor(
    storage: object, offset: object, shape: object, stride: object, *_: object
) -> TensorPointer:
    if not isinstance(storage, StoragePointer):
        raise FileCorruptError("a tensor in the file has no storage")
    numbers = (offset, *_ints(shape), *_ints(stride))
    # Below 2**62, no sum of two of them overflows what torch computes with.
    if len(_ints(shape)) != len(_ints(stride)) or any(
        not isinstance(n, int) or not 0 <= n < 1 << 62 for n in numbers
    ):
        raise FileCorruptError("a tensor in the file has an impossible shape or stride")
    return TensorPointer(storage, int(offset), _ints(shape), _ints(stride))  # type: ignore[call-overload]


def _ints(values: object) -> tuple[int, ...]:
    if not isinstance(values, tuple) or len(values) > 8 or any(type(v) is not int for v in values):
        raise FileCorruptError("a tensor in the file has an impossible shape or stride")
    return values


def _parameter(tensor: object, *_: object) -> object:
    return tensor


def _size(values: object = ()) -> tuple[object, ...]:
    return tuple(values) if isinstance(values, (list, tuple)) and len(values) <= 8 else ()


def _ordered_dict(*_: object) -> dict[object, object]:
    return OrderedDict()


def _encoded(text: object, encoding: object = "latin1") -> bytes:
    """The bytes of a numpy scalar; longer text is dropped, since a file can ask for many copies."""
    return text.encode("latin1") if isinstance(text, str) and len(text) <= 8 else b""


def _numpy_dtype(code: object = "", *_: object) -> _Name:
    """Accepts text alone: a list of shared lists is small in a file, but endless as text."""
    return _Name(code if isinstance(code, str) and len(code) <= 8 else "")


def _numpy_scalar(dtype: object, raw: object = b"") -> float | int:
    formats = {
        "f8": "<d",
        "f4": "<f",
        "f2": "<e",
        "i8": "<q",
        "i4": "<i",
        "i2": "<h",
        "u1": "<B",
        "b1": "<?",
    }
    code = formats.get(dtype.name) if isinstance(dtype, _Name) else None
    if code is None or not isinstance(raw, bytes) or len(raw) != struct.calcsize(code):
        raise FileCorruptError("a numpy scalar in the file can't be decoded")

    number: float | int = struct.unpack(code, raw)[0]
    return number


CALLABLES: dict[tuple[str, str], Callable[..., object]] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): _size,
    ("_codecs", "encode"): _encoded,
    ("numpy", "dtype"): _numpy_dtype,
    ("numpy.core.multiarray", "scalar"): _numpy_scalar,
    ("numpy._core.multiarray", "scalar"): _numpy_scalar,
}
"""Globals that a file may call, and what is called in their place."""


_Unpickler: Any = pickle._Unpickler  # type: ignore[attr-defined]


class PlainUnpickler(_Unpickler):  # type: ignore[misc]
    """Unpickles containers, numbers and text, with a :class:`TensorPointer` for each tensor.

    It uses the stdlib's Python implementation. There, instructions can be replaced one by one, and
    the memo is a dictionary; the C implementation allocates an array as long as the largest index.

    Raises:
        FileUnsafeError: on load, if the file names anything else.
        NotAHypernetworkError: on load, if it has more than :data:`LONGEST_PROGRAM` instructions.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream, encoding="latin1")
        self.dispatch = _Counted(type(self).dispatch)

    def find_class(self, module: str, name: str) -> object:
        """Return the substitute of a global, or refuse it."""
        if (module, name) in CALLABLES:
            return CALLABLES[module, name]
        if module in ("torch", "torch.storage") and (
            name in STORAGE_DTYPES or name in _DTYPE_NAMES
        ):
            return _Name(name)
        # Not an attack, but a file of another kind: the error says which.
        if module.startswith(("torch.nn.", "pytorch_lightning.")):
            raise NotAHypernetworkError(
                f"it holds a {printable(name)}, so it is a checkpoint or an embedding"
            )

        raise FileUnsafeError(
            f"it asks to load {printable(module)}.{printable(name)}, which no hypernetwork needs. "
            "Nothing was run; don't open this file with other programs"
        )

    def persistent_load(self, pid: object) -> StoragePointer:
        """Read a storage reference: ``("storage", type, key, location, numel, …)``."""
        if not (
            isinstance(pid, tuple)
            and len(pid) >= 5
            and isinstance(pid[0], str)
            and pid[0] == "storage"
            and isinstance(pid[1], _Name)
        ):
            raise FileCorruptError("a storage reference in the file is malformed")
        if (
            pid[1].name not in STORAGE_DTYPES
            or not isinstance(pid[2], str)
            or len(pid[2]) > LONGEST_KEY
            or type(pid[4]) is not int
            or not 0 <= pid[4] < 1 << 62
        ):
            raise FileCorruptError("a storage reference in the file is malformed")
        if len(pid) > 5 and pid[5] is not None:
            raise FileCorruptError(
                "a storage in the file is a view of another one, which torch no longer writes"
            )

        return StoragePointer(pid[2], STORAGE_DTYPES[pid[1].name], pid[4])

    def get_extension(self, code: int) -> NoReturn:
        """Refuse extension codes, which weight files never use."""
        raise FileUnsafeError(
            "it uses pickle extension codes, which no hypernetwork needs. Nothing was run"
        )

    def _global(self) -> None:
        lines = self.readline(), self.readline()
        # A truncated name must be reported as damage, not as an attack.
        if not all(line.endswith(b"\n") for line in lines):
            raise EOFError("a name in it is cut off")
        self.append(self.find_class(*(line[:-1].decode("utf-8") for line in lines)))

    def _number(self) -> None:
        """INT and LONG: decimal text, which may end in L; 00 and 01 are booleans."""
        text = self._digits()
        self.append(text == b"01" if text in (b"00", b"01") else int(text.removesuffix(b"L"), 0))

    def _get(self) -> None:
        """GET: reads the memo entry whose index is decimal text."""
        place = int(self._digits())
        if place not in self.memo:
            raise ValueError("it reads a memo entry that it never stored")
        self.append(self.memo[place])

    def _memoise(self) -> None:
        """PUT: stores a memo entry in the same way."""
        place = int(self._digits())
        if place < 0:
            raise ValueError("it stores a memo entry without an index")
        self.memo[place] = self.stack[-1]

    def _digits(self) -> bytes:
        text: bytes = self.readline().strip()
        if len(text) > _LONGEST_NUMBER:
            raise ValueError("a number has too many digits")
        return text

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        function = self.stack[-1]
        # By identity: comparing with == would call a method of something that the file built.
        if not isinstance(arguments, tuple) or not any(
            function is known for known in CALLABLES.values()
        ):
            raise FileUnsafeError("it calls something that no hypernetwork needs. Nothing was run")
        self.stack[-1] = function(*arguments)

    def _build(self) -> None:
        """Drop the state, which only OrderedDict's ``_metadata`` and numpy's dtype have."""
        self.stack.pop()
        if not isinstance(self.stack[-1], (OrderedDict, _Name)):
            raise FileUnsafeError(
                "it sets attributes of something that no hypernetwork has. Nothing was run"
            )

    def _refuse(self) -> NoReturn:
        raise FileUnsafeError("it builds an object, which no hypernetwork needs. Nothing was run")

    def _refuse_container(self) -> NoReturn:
        raise NotAHypernetworkError("it holds a set or a byte array, which no hypernetwork does")

    def _set_items(self) -> None:
        self._put(self.pop_mark())

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._put([key, value])

    def _dict(self) -> None:
        items = self.pop_mark()
        self.stack.append({})
        self._put(items)

    def _put(self, items: list[object]) -> None:
        """Fill the dictionary on top of the stack, with keys that are quick to hash."""
        target, keys = self.stack[-1], items[::2]
        if not isinstance(target, dict) or not all(_is_plain_key(key) for key in keys):
            raise NotAHypernetworkError(
                "it has a dictionary whose keys are neither short text nor numbers"
            )
        target.update(zip(keys, items[1::2], strict=True))

    dispatch: Any = dict(_Unpickler.dispatch)  # noqa: RUF012 - the base has it here, an instance its counting copy
    dispatch[pickle.GLOBAL[0]] = _global
    dispatch[pickle.INT[0]] = dispatch[pickle.LONG[0]] = _number
    dispatch[pickle.GET[0]] = _get
    dispatch[pickle.PUT[0]] = _memoise
    dispatch[pickle.REDUCE[0]] = _reduce
    dispatch[pickle.BUILD[0]] = _build
    dispatch[pickle.SETITEM[0]] = _set_item
    dispatch[pickle.SETITEMS[0]] = _set_items
    dispatch[pickle.DICT[0]] = _dict
    for _opcode in (pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX):
        dispatch[_opcode[0]] = _refuse
    # A few bytes can ask for a large byte array, and sets hash what is in them.
    for _opcode in (pickle.EMPTY_SET, pickle.FROZENSET, pickle.BYTEARRAY8):
        dispatch[_opcode[0]] = _refuse_container


class _Counted(dict[int, Any]):
    """Instructions by opcode; counts how many are executed, and refuses too many."""

    def __init__(self, instructions: dict[int, Any]) -> None:
        super().__init__(instructions)
        self._left = LONGEST_PROGRAM

    def __getitem__(self, opcode: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise NotAHypernetworkError(
                "its pickle is a hundred times longer than a hypernetwork's"
            )
        return super().__getitem__(opcode)


def _is_plain_key(key: object) -> bool:
    """Whether a key is text or a number.

    Hashing a nested tuple can take for ever or overflow the C stack; huge integers can be chosen so
    that their hashes collide.
    """
    return (
        (isinstance(key, (str, bytes)) and len(key) <= LONGEST_KEY)
        or isinstance(key, float)
        or key is None
        or (isinstance(key, int) and abs(key) < 1 << 60)
    )


_DTYPE_NAMES = {str(dtype).removeprefix("torch.") for dtype in STORAGE_DTYPES.values()}


def load_plain(stream: IO[bytes]) -> Any:
    """Unpickle one object from the stream.

    Raises:
        FileUnsafeError: it names or calls anything but containers and tensors.
        FileCorruptError: it isn't a complete pickle.
        NotAHypernetworkError: it has containers that no hypernetwork has.
    """
    try:
        return PlainUnpickler(stream).load()
    except FileError:
        raise
    except Exception as error:
        raise FileCorruptError(
            f"its pickle can't be decoded ({_reason(error)}): download it again"
        ) from error


def _reason(error: Exception) -> str:
    """The text of an error; its name alone if it has an object from the file, endless as text."""
    said = error.args[0] if len(error.args) == 1 else None
    name = type(error).__name__
    return printable(f"{name}: {said[:80]}" if isinstance(said, str) else name)
