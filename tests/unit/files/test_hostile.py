"""Hostile, damaged and foreign files: always one of our errors, promptly, and never a line of their
code run."""

from __future__ import annotations

import importlib
import os
import pickle
import random
import socket
import struct
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hardening.pickling import (
    CALLS,
    COMMAND,
    GLOBALS,
    MATRIX,
    OBJECTS,
    ORDERED,
    PLACES,
    dictionary,
    legacy,
    network,
    number,
    storage,
    tensor,
    text,
    zipped,
)
from reference import Recipe
from safetensors.torch import save_file
from unit.files.containers import save_legacy, save_safetensors, save_zip

import hypernetworks as hn
from hypernetworks.errors import (
    FileCorruptError,
    FileMissingError,
    FileUnreadableError,
    FileUnsafeError,
    HypernetworkError,
    NotAHypernetworkError,
    StructureError,
    UnsupportedVariantError,
)

PROMPT = 8.0
"""Seconds that any refusal may take on a busy core; most take milliseconds."""


@pytest.fixture(autouse=True)
def attempts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Everything that code from a file could call to do harm, replaced by a note of the attempt."""
    noted: list[object] = []
    system = importlib.import_module(os.name)

    def note(*arguments: object, **_: object) -> int:
        noted.append(arguments)
        return 0

    for module, name in (
        (os, "system"),
        (system, "system"),
        (os, "popen"),
        (subprocess, "Popen"),
        (socket, "socket"),
    ):
        monkeypatch.setattr(module, name, note)
    yield noted
    assert noted == [], "code from a file was run"


def refused(path: Path | str, *kinds: type[HypernetworkError]) -> HypernetworkError:
    """The error that reading ends with: one of ours, of the kind expected, in time, with something
    to say."""
    began = time.monotonic()
    with pytest.raises(HypernetworkError) as caught:
        hn.read(path)
    assert time.monotonic() - began < PROMPT
    assert not kinds or type(caught.value) in kinds, repr(caught.value)
    assert len(str(caught.value)) > 10
    assert str(caught.value).replace("\n", " ").isprintable()
    return caught.value


CONTAINERS = pytest.mark.parametrize("container", [zipped, legacy])
Container = Callable[[Path, bytes], Path]


@CONTAINERS
def test_the_handmade_network_itself_is_healthy(container: Container, tmp_path: Path) -> None:
    assert hn.read(container(tmp_path / "net.pt", network())).widths == (8,)


@pytest.mark.parametrize("call", CALLS)
def test_the_hostile_pickles_are_live(call: str, attempts: list[object]) -> None:
    pickle.loads(b"\x80\x04" + CALLS[call] + b".")
    assert str(attempts).count(COMMAND) >= 1
    attempts.clear()


@CONTAINERS
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("call", CALLS)
def test_calls(call: str, place: str, container: Container, tmp_path: Path) -> None:
    refused(container(tmp_path / "evil.pt", PLACES[place](CALLS[call])), FileUnsafeError)


@pytest.mark.parametrize("call", CALLS)
def test_calls_in_every_part_of_a_legacy_file(call: str, tmp_path: Path) -> None:
    refused(
        legacy(tmp_path / "head.pt", network(), head=CALLS[call]),
        FileUnsafeError,
        NotAHypernetworkError,
    )
    refused(legacy(tmp_path / "keys.pt", network(), keys=CALLS[call]), FileUnsafeError)
    (tmp_path / "bare.pt").write_bytes(b"\x80\x04" + CALLS[call] + b".")
    refused(tmp_path / "bare.pt", FileUnsafeError, NotAHypernetworkError)


@pytest.mark.parametrize("named", GLOBALS)
def test_globals_are_refused_even_uncalled(named: str, tmp_path: Path) -> None:
    module, name = named.split()
    plain = f"c{module}\n{name}\n".encode()
    from_stack = text(module) + text(name) + b"\x93"
    for i, expression in enumerate((plain, from_stack, network(extra=((text("name"), plain),)))):
        message = str(refused(zipped(tmp_path / f"{i}.pt", expression), FileUnsafeError))
        assert f"{module}.{name}" in message
        assert "Nothing was run" in message


@pytest.mark.parametrize(
    "named", ["torch FloatStorage.__init__", "torch nn", "torch.nn.modules.linear Linear"]
)
def test_other_classes_of_torch_are_refused(named: str, tmp_path: Path) -> None:
    expression = "c{}\n{}\n".format(*named.split()).encode()
    refused(zipped(tmp_path / "a.pt", expression), FileUnsafeError, NotAHypernetworkError)


@CONTAINERS
@pytest.mark.parametrize("case", OBJECTS)
def test_objects_and_their_state_are_refused(
    case: str, container: Container, tmp_path: Path
) -> None:
    refused(
        container(tmp_path / "evil.pt", network(extra=((text("name"), OBJECTS[case]),))),
        FileUnsafeError,
    )
    from hypernetworks.files import pickles

    assert "changed" not in str(pickles._ordered_dict.__doc__)
    assert "changed" not in str(pickles._tensor.__doc__)


def nested(inner: bytes, times: int) -> bytes:
    """A persistent id in a persistent id in …"""
    for _ in range(times):
        inner = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + inner + b"K\x40tQ"
    return inner


PERSISTENT: dict[str, bytes] = {
    "nested": nested(b"N", 50) + b"Q",
    "of text": b"Pos system\n",
    "a number": b"K\x01Q",
    "none": b"NQ",
    "another kind": b"("
    + text("module")
    + b"ctorch\nFloatStorage\n"
    + text("0")
    + text("cpu")
    + b"K\x01tQ",
    "too short": b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + b"tQ",
    "another type": storage(kind="float32"),
    "a type that is text": b"("
    + text("storage")
    + text("FloatStorage")
    + text("0")
    + text("cpu")
    + b"K\x01tQ",
    "negative length": storage(numel=-1),
    "length is text": b"("
    + text("storage")
    + b"ctorch\nFloatStorage\n"
    + text("0")
    + text("cpu")
    + text("9")
    + b"tQ",
    "key is a number": b"("
    + text("storage")
    + b"ctorch\nFloatStorage\nK\x00"
    + text("cpu")
    + b"K\x40tQ",
    "a view": storage()[:-2] + b"(" + text("1") + b"K\x00K\x01ttQ",
    "missing in the archive": storage("77"),
    "a path": storage("../../etc/passwd"),
}


@CONTAINERS
@pytest.mark.parametrize("case", PERSISTENT)
def test_storage_references(case: str, container: Container, tmp_path: Path) -> None:
    path = container(
        tmp_path / "a.pt", network(weight=tensor((8, 8), (8, 1), source=PERSISTENT[case]))
    )
    refused(path, FileCorruptError)


TENSORS: dict[str, bytes] = {
    "more numbers than there are": tensor((9, 8), (8, 1)),
    "stride beyond the storage": tensor((8, 8), (9, 1)),
    "offset beyond the storage": tensor((8, 8), (8, 1), offset=1),
    "huge offset": tensor((8, 8), (8, 1), offset=2**70),
    "negative offset": tensor((8, 8), (8, 1), offset=-1),
    "negative stride": tensor((8, 8), (-8, 1)),
    "negative shape": tensor((-8, 8), (8, 1)),
    "huge shape": tensor((2**70, 8), (8, 1)),
    "huge shape in one place": tensor((2**40, 2**40), (0, 0)),
    "one number, repeated": tensor((2**15, 2**15), (0, 0)),
    "stride 0": tensor((9, 8), (0, 1)),
    "huge stride of one row": tensor((1, 8), (2**80, 1)),
    "huge stride of a column": tensor((8, 1), (1, 2**63)),
    "strides that wrap round": tensor((3, 8), (2**63, 1)),
    "many dimensions": tensor((1,) * 5000, (0,) * 5000),
    "many dimensions of 4": tensor((4,) * 70, (0,) * 70),
    "fewer strides": tensor((8, 8), (8,)),
    "shape is a list": b"ctorch._utils\n_rebuild_tensor_v2\n("
    + storage()
    + b"K\x00](K\x08K\x08e](K\x08K\x01etR",
    "shape has text": b"ctorch._utils\n_rebuild_tensor_v2\n("
    + storage()
    + b"K\x00"
    + text("8")
    + b"\x85K\x01\x85tR",
    "shape has bools": b"ctorch._utils\n_rebuild_tensor_v2\n("
    + storage()
    + b"K\x00\x88\x88\x86\x88\x88\x86tR",
    "offset is None": b"ctorch._utils\n_rebuild_tensor_v2\n("
    + storage()
    + b"NK\x08\x85K\x01\x85tR",
    "no arguments": b"ctorch._utils\n_rebuild_tensor_v2\n)R",
    "storage is a tensor": tensor((8, 8), (8, 1), source=MATRIX),
    "length is a lie": tensor((100, 8), (8, 1), source=storage(numel=10**15)),
}
REPEATED = {"huge shape in one place", "one number, repeated", "stride 0"}
"""Legal views that repeat their numbers: a small file could ask for any amount of memory."""
EMPTY: dict[str, bytes] = {
    "scalar": tensor((), ()),
    "no rows": tensor((0, 8), (8, 1)),
    "nothing, hugely": tensor((0, 2**60, 2**60), (1, 1, 1)),
    "three dimensions": tensor((8, 4, 2), (8, 2, 1)),
    "eight dimensions": tensor((2,) * 6, (32, 16, 8, 4, 2, 1)),
    "not a tensor": b"K\x05",
    "integers": tensor((8, 8), (8, 1), source=storage(kind="IntStorage")),
    "bools": tensor((8, 8), (8, 1), source=storage(kind="BoolStorage")),
}


@CONTAINERS
@pytest.mark.parametrize("part", ["weight", "bias"])
@pytest.mark.parametrize("case", [*TENSORS, *EMPTY])
def test_lying_tensors(case: str, part: str, container: Container, tmp_path: Path) -> None:
    expression = TENSORS.get(case) or EMPTY[case]
    path = container(tmp_path / "a.pt", network(**{part: expression}))
    if case in REPEATED:
        expected: type[Exception] = UnsupportedVariantError
    else:
        expected = FileCorruptError if case in TENSORS else StructureError
    refused(path, expected)


DEEP = 150_000
FOREVER = b")" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(60))
"""A pair of a pair of … of the same: 180 bytes whose hash visits 2**60 tuples."""
BOMBS: dict[str, bytes] = {
    "huge memo index": b"Nr\xff\xff\xff\xff0" * 1000 + b"N",
    "huge memo index as text": b"Np99999999999999999999\n0N",
    "memo that is not there": b"h\x05",
    "list in list": b"]" * DEEP + b"a" * (DEEP - 1),
    "tuple in tuple": b")" + b"\x85" * DEEP,
    "dictionary in dictionary": (b"}" + text("a")) * 40_000 + b"N" + b"s" * 40_000,
    "deep metadata": network(extra=((text("name"), b")" + b"\x85" * DEEP),)),
    "deep layer structure": network(extra=((text("layer_structure"), b")" + b"\x85" * DEEP),)),
    "deep key": dictionary((b")" + b"\x85" * DEEP, b"N")),
    "key that takes for ever to hash": dictionary((FOREVER, b"N")),
    "the same by one item": b"}" + FOREVER + b"Ns",
    "the same by dict": b"(" + FOREVER + b"Nd",
    "set of deep tuples": b"\x8f()" + b"\x85" * DEEP + b"\x90",
    "frozenset of deep tuples": b"()" + b"\x85" * DEEP + b"\x91",
    "many sets": b"\x8f" * DEEP + b"N",
    "keys that collide": dictionary(*((number(i * (2**61 - 1)), b"N") for i in range(20_000))),
    "shared lists": b"".join(
        b"]q" + bytes([i]) + b"(" + (b"h" + bytes([i - 1]) if i else b"N") * 2000 + b"e0"
        for i in range(5)
    )
    + dictionary((text("a"), b"h\x04")),
    "marks": b"(" * DEEP + b"N",
    "copies of a long text": text("x" * 100_000)
    + b"\x94"
    + b"c_codecs\nencode\n\x940"
    + b"h\x01h\x00\x85R0" * 20_000,
    "copies of a long list": b"]("
    + b"N" * 50_000
    + b"e\x94ctorch\nSize\n\x940"
    + b"h\x01h\x00\x85R0" * 5_000,
    "huge byte array": b"\x96" + struct.pack("<Q", 1 << 45) + b"a",
    "huge bytes": b"\x8e" + struct.pack("<Q", 1 << 45) + b"a",
    "huge text": b"\x8d" + struct.pack("<Q", 1 << 45) + b"a",
    "huge frame": b"\x95" + struct.pack("<Q", 1 << 45) + b"N",
    "huge integer": b"\x8b" + struct.pack("<i", 2**31 - 1) + b"\xff",
    "negative integer length": b"\x8b" + struct.pack("<i", -5) + b"\xff",
    "an integer of a million digits": b"L" + b"9" * 1_000_000 + b"L\n",
    "a key of a million bits": dictionary(
        (b"\x8b" + struct.pack("<i", 125_000) + b"\x7f" * 125_000, b"N")
    ),
    "an unknown opcode": b"\xfe",
    "an unknown protocol": b"\x80\xff",
    "popping too much": b"000",
    "a buffer from outside": b"\x97",
    "an odd number of items": b"}(K\x01u",
    "items for a list": b"](K\x00K\x01u",
    "items for a function": ORDERED + b"(K\x00K\x01u",
    "appending to a number": b"K\x01K\x02a",
}


@CONTAINERS
@pytest.mark.parametrize("case", BOMBS)
def test_bombs(case: str, container: Container, tmp_path: Path) -> None:
    kinds = (FileCorruptError, NotAHypernetworkError, FileUnsafeError, StructureError)
    path = container(tmp_path / "bomb.pt", BOMBS[case])
    if case == "deep metadata":  # of no concern: nobody looks there
        assert hn.read(path).provenance.name is None
    else:
        refused(path, *kinds)


def test_a_description_of_many_megabytes_is_not_even_read(tmp_path: Path) -> None:
    expression = b"N0" * (20 << 20) + network()
    began = time.process_time()  # other programs may be busy
    refused(zipped(tmp_path / "a.pt", expression), NotAHypernetworkError)
    assert time.process_time() - began < 2
    refused(legacy(tmp_path / "b.pt", expression), NotAHypernetworkError)


# Damaged files


def healthy(kind: str, path: Path) -> bytes:
    """A healthy file of a kind, as bytes."""
    content = Recipe((8,), (1, 2, 1), "prelu", True, True, (0, 0.3, 0)).content()
    if kind == "written":
        hn.write(hn.read(save_zip(content, path)), path)
    else:
        {"zip": save_zip, "legacy": save_legacy, "safetensors": save_safetensors}[kind](
            content, path
        )
    assert hn.read(path).widths == (8,)
    return path.read_bytes()


KINDS = pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "written"])


@KINDS
def test_truncated(kind: str, tmp_path: Path) -> None:
    data = healthy(kind, tmp_path / "net.pt")
    offsets = {0, 1, 2, 7, 8, 9, 63, 64, 65, len(data) - 1, *range(3, len(data), len(data) // 120)}
    for offset in offsets:
        (tmp_path / "cut.pt").unlink(missing_ok=True)
        (tmp_path / "cut.pt").write_bytes(data[:offset])
        refused(tmp_path / "cut.pt", FileCorruptError, NotAHypernetworkError)


@KINDS
def test_something_in_front_or_behind(kind: str, tmp_path: Path) -> None:
    data = healthy(kind, tmp_path / "net.pt")
    (tmp_path / "front.pt").write_bytes(b"<html>" + data)
    refused(tmp_path / "front.pt", FileCorruptError, NotAHypernetworkError)
    (tmp_path / "behind.pt").write_bytes(data + bytes(100_000))
    if kind == "legacy":  # its numbers are counted from the front
        assert hn.read(tmp_path / "behind.pt").widths == (8,)
    else:
        refused(tmp_path / "behind.pt", FileCorruptError)


@KINDS
def test_flipped_bits_and_changed_bytes(kind: str, tmp_path: Path) -> None:
    data, drawn, outcomes = healthy(kind, tmp_path / "net.pt"), random.Random(kind), list[str]()
    for i in range(400):
        changed = bytearray(data)
        for _ in range(drawn.choice([1, 1, 1, 4])):
            end = drawn.random() < 0.3
            position = (
                drawn.randrange(min(2000, len(data)))
                if drawn.random() < 0.8
                else drawn.randrange(len(data))
            )
            changed[-1 - position if end else position] ^= 1 << drawn.randrange(8)
        path = tmp_path / f"{i}.pt"
        path.write_bytes(changed)
        try:
            hn.read(path).transform(torch.zeros(1, 1, 8))
            outcomes.append("read")
        except HypernetworkError as error:
            outcomes.append(type(error).__name__)
        path.unlink()
    assert outcomes.count("read") < 250, "the damage hits something that matters"
    assert "FileCorruptError" in outcomes


def test_changed_pickles_with_the_right_checksum(tmp_path: Path) -> None:
    healthy("written", tmp_path / "net.pt")
    with zipfile.ZipFile(tmp_path / "net.pt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    drawn, outcomes, pickled = random.Random(4), set(), members.pop("archive/data.pkl")
    for i in range(600):
        changed = bytearray(pickled)
        for _ in range(drawn.choice([1, 1, 2])):
            at = drawn.randrange(len(changed))
            width = drawn.choice([0, 1, 1, 2])
            changed[at : at + width] = drawn.randbytes(drawn.choice([0, 1, 1, 3]))
        path = tmp_path / f"{i}.pt"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", bytes(changed))
            for name, content in members.items():
                archive.writestr(name, content)
        try:
            hn.read(path).transform(torch.zeros(1, 1, 8))
        except HypernetworkError as error:
            outcomes.add(type(error))
        path.unlink()
    assert {FileCorruptError, FileUnsafeError, StructureError} <= outcomes


# Archives


def archive_with(path: Path, **changes: object) -> Path:
    """A healthy network in an archive with one thing wrong."""
    with zipfile.ZipFile(path, "w") as archive:
        name = str(changes.get("pickle_name", "archive/data.pkl"))
        for _ in range(int(bool(changes.get("pickle", True)))):
            archive.writestr(name, b"\x80\x02" + network() + b".")
        archive.writestr(
            "archive/data/0",
            bytes(int(str(changes.get("length", 256)))),
            zipfile.ZIP_DEFLATED if changes.get("compressed") else zipfile.ZIP_STORED,
        )
        for extra in changes.get("extra", ()):  # type: ignore[attr-defined]
            archive.writestr(extra, b"big" if extra.endswith("byteorder") else b"x")
    return path


ARCHIVES: dict[str, tuple[dict[str, object], type[HypernetworkError]]] = {
    "compressed": ({"compressed": True}, FileCorruptError),
    "duplicate storage": ({"extra": ["archive/data/0"]}, FileCorruptError),
    "duplicate pickle": ({"extra": ["archive/data.pkl"]}, NotAHypernetworkError),
    "two pickles": ({"extra": ["other/data.pkl"]}, NotAHypernetworkError),
    "no pickle": ({"pickle": False}, NotAHypernetworkError),
    "pickle at the top": ({"pickle_name": "data.pkl"}, NotAHypernetworkError),
    "pickle too deep": ({"pickle_name": "a/b/data.pkl"}, NotAHypernetworkError),
    "absolute pickle": ({"pickle_name": "/data.pkl"}, FileCorruptError),
    "absolute member": ({"extra": ["/etc/cron.d/x"]}, FileCorruptError),
    "member above": ({"extra": ["../../x"]}, FileCorruptError),
    "member above, later": ({"extra": ["archive/../../x"]}, FileCorruptError),
    "storage too short": ({"length": 255}, FileCorruptError),
    "storage empty": ({"length": 0}, FileCorruptError),
    "big-endian": ({"extra": ["archive/byteorder"]}, FileCorruptError),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("case", ARCHIVES)
def test_archives(case: str, tmp_path: Path) -> None:
    changes, kind = ARCHIVES[case]
    refused(archive_with(tmp_path / "a.pt", **changes), kind)
    assert [item.name for item in tmp_path.iterdir()] == ["a.pt"], "nothing was unpacked"


def test_an_archive_of_another_kind(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "empty.pt", "w"):
        pass
    refused(tmp_path / "empty.pt", NotAHypernetworkError)
    with zipfile.ZipFile(tmp_path / "book.pt", "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
    refused(tmp_path / "book.pt", NotAHypernetworkError)


@pytest.mark.parametrize(
    ("field", "value"),
    [("header_offset", 10**6), ("header_offset", 1), ("file_size", 2**40), ("file_size", 100)],
)
def test_a_table_of_contents_that_lies(field: str, value: int, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + network() + b".")
        archive.writestr("archive/data/0", bytes(256))
        member = archive.getinfo("archive/data/0")
        setattr(member, field, value)
        if field == "file_size":
            member.compress_size = value
    refused(path, FileCorruptError)


# Files of other kinds


def text_file(path: Path) -> None:
    path.write_text("404: Not Found\n" * 20)


def web_page(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html><body>Sign in to download</body></html>")


def picture(path: Path) -> None:
    path.write_bytes(
        bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000") * 9
    )


def lora(path: Path) -> None:
    save_file({"lora_unet_down_blocks_0.lora_down.weight": torch.zeros(4, 8)}, str(path))


def lora_pickle(path: Path) -> None:
    torch.save({"lora_te_text_model.lora_up.weight": torch.zeros(4, 8)}, path)


def checkpoint(path: Path) -> None:
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(4, 8)}, str(path))


def checkpoint_pickle(path: Path) -> None:
    torch.save(
        {"state_dict": {"cond_stage_model.x": torch.zeros(4)}, "global_step": 470000, "epoch": 6},
        path,
    )


def lightning_checkpoint(path: Path) -> None:
    key = b"cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\n"
    zipped(path, dictionary((text("callbacks"), dictionary((key, b"}")))))


def embedding(path: Path) -> None:
    torch.save(
        {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.zeros(2, 768)}, "step": 5},
        path,
    )


def old_embedding(path: Path) -> None:
    parameters = torch.nn.ParameterDict({"*": torch.nn.Parameter(torch.zeros(2, 768))})
    torch.save({"string_to_token": {"*": torch.tensor(265)}, "string_to_param": parameters}, path)


def embedding_safetensors(path: Path) -> None:
    save_file({"emb_params": torch.zeros(2, 768)}, str(path))


def side_car(path: Path) -> None:
    torch.save(
        {"optimizer_name": "AdamW", "hash": "abc", "optimizer_state_dict": {"state": {0: {}}}}, path
    )


def whole_module(path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), path)


def other_safetensors(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, str(path))


def empty_safetensors(path: Path) -> None:
    save_file({}, str(path))


OTHERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "text": (text_file, "not a torch file"),
    "web page": (web_page, "a web page"),
    "PNG": (picture, "an image"),
    "LoRA": (lora, "LoRA"),
    "LoRA, pickled": (lora_pickle, "LoRA"),
    "checkpoint": (checkpoint, "checkpoint"),
    "checkpoint, pickled": (checkpoint_pickle, "checkpoint"),
    "checkpoint, lightning": (lightning_checkpoint, "checkpoint"),
    "embedding": (embedding, "textual inversion"),
    "embedding, old": (old_embedding, "embedding"),
    "embedding, safetensors": (embedding_safetensors, "named"),
    "side-car": (side_car, "optimizer"),
    "module": (whole_module, "Linear"),
    "other tensors": (other_safetensors, "named"),
    "no tensors": (empty_safetensors, "no tensors"),
    "ordinary pickle": (
        lambda path: path.write_bytes(pickle.dumps({8: 1})) and None,
        "not one that torch wrote",
    ),
}


@pytest.mark.parametrize("name", ["net.pt", "net.safetensors", "net.ckpt"])
@pytest.mark.parametrize("case", OTHERS)
def test_healthy_files_of_other_kinds(case: str, name: str, tmp_path: Path) -> None:
    make, message = OTHERS[case]
    make(tmp_path / name)
    assert message in str(refused(tmp_path / name, NotAHypernetworkError))


def test_a_recipe_in_text(tmp_path: Path) -> None:
    (tmp_path / "a.hns").write_text("{'x': 0.5}")
    refused(tmp_path / "a.hns", UnsupportedVariantError)


def test_an_empty_file(tmp_path: Path) -> None:
    for name in ("a.pt", "a.safetensors", "a.ckpt"):
        (tmp_path / name).touch()
        assert "empty" in str(refused(tmp_path / name, FileCorruptError))


SAFETENSORS_HEADERS: dict[str, bytes] = {
    "not JSON": b"{nonsense",
    "deep": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "no dictionary": b"{}",
    "offsets beyond the file": b'{"8.k.linear.0.weight":{"dtype":"F32","shape":[8,8],"data_offsets":[0,99999]}}',
    "negative offsets": b'{"8.k.linear.0.weight":{"dtype":"F32","shape":[8,8],"data_offsets":[-4,252]}}',
    "shape of another size": b'{"8.k.linear.0.weight":{"dtype":"F32","shape":[80,80],"data_offsets":[0,256]}}',
    "huge shape": b'{"8.k.linear.0.weight":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,256]}}',
    "an unknown type": b'{"8.k.linear.0.weight":{"dtype":"F3","shape":[8,8],"data_offsets":[0,256]}}',
    "metadata that are no text": b'{"__metadata__":{"a":1}}',
    "one side only": b'{"8.k.linear.0.weight":{"dtype":"F32","shape":[8,8],"data_offsets":[0,256]}}',
    "width 0": b'{"0.k.linear.0.weight":{"dtype":"F32","shape":[8,8],"data_offsets":[0,256]}}',
    "width of other digits": '{"٨.k.linear.0.weight":{"dtype":"F32","shape":[8,8],"data_offsets":[0,256]}}'.encode(),
    "complex numbers": b'{"8.k.linear.0.weight":{"dtype":"C64","shape":[8,4],"data_offsets":[0,256]}}',
}


@pytest.mark.parametrize("case", SAFETENSORS_HEADERS)
def test_safetensors_headers(case: str, tmp_path: Path) -> None:
    header = SAFETENSORS_HEADERS[case]
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(256))
    refused(tmp_path / "a.safetensors")


@pytest.mark.parametrize("length", [0, 1, 2**20, 2**29, 2**31, 2**63, 2**64 - 1])
def test_safetensors_with_a_header_length_that_lies(length: int, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", length) + b"{}" + bytes(256))
    refused(tmp_path / "a.safetensors", FileCorruptError, NotAHypernetworkError)


# Places


def test_a_missing_file(tmp_path: Path) -> None:
    error = refused(tmp_path / "gone.pt", FileMissingError)
    assert isinstance(error, FileNotFoundError)
    assert "gone.pt" in str(error)
    refused(tmp_path / "no folder" / "gone.pt", FileMissingError)


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.pt").mkdir()
    error = refused(tmp_path / "a.pt", FileUnreadableError)
    assert isinstance(error, OSError)
    assert "folder" in str(error)


@pytest.mark.parametrize(
    "name", ["a\0b.pt", "\0", "x" * 5000 + ".pt", "a.pt/b.pt", "loop.pt", "\ud800.pt"]
)
def test_names_that_can_not_be(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.pt").touch()
    (tmp_path / "loop.pt").symlink_to(tmp_path / "loop.pt")
    refused(f"{tmp_path}/{name}", FileUnreadableError, FileMissingError)


@pytest.mark.parametrize("name", ["a\nb\x1b[31m.pt", "\u202egnp.pt", "a\udc80.pt"])
def test_names_with_control_characters_stay_out_of_the_message(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("no network")
    assert str(refused(path, NotAHypernetworkError)).isprintable()


@pytest.mark.skipif(os.name != "posix", reason="pipes are no files there")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    refused(tmp_path / "pipe.pt", FileUnreadableError)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    save_zip(Recipe().content(), tmp_path / "a.pt").chmod(0)
    refused(tmp_path / "a.pt", FileUnreadableError)
