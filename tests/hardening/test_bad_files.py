"""A seeded part of the fuzzer's long run, the watch itself, and descriptions just within the
limits."""

from __future__ import annotations

import json
import struct
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Recipe
from unit.files.containers import save_legacy, save_zip

import hypernetworks as hn
from hypernetworks.errors import FileCorruptError, HypernetworkError, NotAHypernetworkError

pytest.importorskip("resource", reason="memory is limited and measured with it")

from hardening import fuzz
from hardening.healthy import KINDS, healthy
from hardening.pickling import legacy, network, number, text, zipped
from hardening.watched import PLANTS

CASES = 576


def test_a_part_of_the_long_run(tmp_path: Path) -> None:
    report = fuzz.run(CASES, 20, tmp_path, timed=False)
    assert report.broken == []
    outcomes = {name: family.outcomes for name, family in report.families.items()}
    assert outcomes["truncated"]["read"] == 0
    assert set(outcomes["gadgets"]) <= {"FileUnsafeError", "NotAHypernetworkError"}
    assert {name for name, counted in outcomes.items() if len(counted) < 2} <= {
        "gadgets",
        "side-cars",
    }, "some family has one face"
    agreements = [
        counted for family in report.families.values() for counted in family.agreements.elements()
    ]
    assert agreements.count("same") > 40, "what is read was compared with torch's own reading"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = fuzz.Reader()
    fuzz.warm_up(made, tmp_path_factory.mktemp("warm"))
    yield made
    made.close()


@pytest.mark.parametrize("plant", PLANTS)
def test_the_watch_notices_what_no_reader_may_do(
    plant: str, reader: fuzz.Reader, tmp_path: Path
) -> None:
    path = tmp_path / healthy("zip").name
    path.write_bytes(healthy("zip").content)
    assert list(fuzz.faults(reader.ask(path), "read", path.stat().st_size, timed=False)) == []
    if plant == "dies":
        with closing(fuzz.Reader()) as another, pytest.raises(RuntimeError, match="ended with -9"):
            another.ask(path, plant)
    else:
        assert (
            list(fuzz.faults(reader.ask(path, plant), plant, path.stat().st_size, timed=False))
            != []
        )


@pytest.mark.parametrize("kind", KINDS)
def test_the_bases_are_healthy(kind: str, reader: fuzz.Reader, tmp_path: Path) -> None:
    path = tmp_path / healthy(kind).name
    path.write_bytes(healthy(kind).content)
    seen = reader.ask(path, compare=True)
    expected = ("NotAHypernetworkError", "") if "side-car" in kind else ("read", "same")
    assert (seen["outcome"], seen["agreement"]) == expected
    assert len(healthy(kind).boundaries) >= 5


COUNT = 65_000
JUST_ENOUGH: dict[str, bytes] = {
    "lists": b"(" + b"]" * 190_000 + b"l",
    "dictionaries": b"(" + b"}" * 190_000 + b"l",
    "lists in the memo": b"(" + b"]\x94" * 95_000 + b"l",
    "marks": b"(" * 190_000 + b"N",
    "ordered dictionaries": b"ccollections\nOrderedDict\n\x940(" + b"h\x00)R" * COUNT + b"l",
    "filled dictionaries": b"(" + b"}NNs" * 48_000 + b"l",
    "numbers": b"(" + number(2**64) * 190_000 + b"l",
    "a text of wide letters": text("\U0001f4a3" * 1_000_000),
    "many texts": b"(" + text("\U0001f4a3" * 5) * 150_000 + b"l",
    "keys": b"}(" + b"".join(number(i) + b"N" for i in range(90_000)) + b"u",
}


@pytest.mark.parametrize("container", [zipped, legacy])
@pytest.mark.parametrize("case", JUST_ENOUGH)
def test_memory_of_descriptions_just_within_the_limit(
    case: str, container: Any, reader: fuzz.Reader, tmp_path: Path
) -> None:
    path = container(tmp_path / "a.pt", JUST_ENOUGH[case])
    seen = reader.ask(path)
    assert seen["outcome"] in ("NotAHypernetworkError", "FileCorruptError", "StructureError")
    assert (
        seen["kibibytes"] is None
        or 0 <= int(str(seen["kibibytes"])) < fuzz.LIMIT_KIB + path.stat().st_size // 1024
    )


@pytest.mark.parametrize(
    "filling", [b",[]", b",{}", b',"a"', b",1e5", b',"\\ud83d\\udca3"', b",[[[]]]"]
)
def test_memory_of_headers_just_within_the_limit(
    filling: bytes, reader: fuzz.Reader, tmp_path: Path
) -> None:
    header = b'{"a":[0' + filling * ((1 << 20) // len(filling) - 10) + b"]}"
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    seen = reader.ask(path)
    assert seen["outcome"] in ("NotAHypernetworkError", "FileCorruptError")
    assert (
        seen["kibibytes"] is None
        or int(str(seen["kibibytes"])) < fuzz.LIMIT_KIB + path.stat().st_size // 1024
    )


@pytest.mark.parametrize("container", [zipped, legacy])
def test_a_million_instructions_are_not_carried_out(container: Any, tmp_path: Path) -> None:
    assert hn.read(container(tmp_path / "few.pt", b"N0" * 1000 + network())).widths == (8,)
    with pytest.raises(NotAHypernetworkError, match="longer than a hypernetwork's"):
        hn.read(container(tmp_path / "many.pt", b"N0" * 500_000 + network()))


def test_numbers_of_a_million_digits(tmp_path: Path) -> None:
    before = getattr(sys, "get_int_max_str_digits", int)()
    for digits, names in ((b"I%s\n", (FileCorruptError,)), (b"L%sL\n", (FileCorruptError,))):
        with pytest.raises(names):
            hn.read(
                zipped(
                    tmp_path / "a.pt", network(extra=((text("step"), digits % (b"9" * 1_000_000)),))
                )
            )
    header = {"8.k.linear.0.bias": {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}}
    encoded = json.dumps(header).replace("[8]", f"[{'9' * 500_000}]").encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(encoded)) + encoded + bytes(32))
    with pytest.raises(FileCorruptError):
        hn.read(tmp_path / "a.safetensors")
    assert getattr(sys, "get_int_max_str_digits", int)() == before


PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=9),
    st.binary(max_size=9),
    st.just("relu"),
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
        st.tuples(inner, inner),
    ),
    max_leaves=12,
)
KEYS = st.sampled_from(list(Recipe().content()))


def outcome(path: Path) -> hn.Hypernetwork | str:
    """The network, or what is wrong; anything but our own errors goes through."""
    try:
        return hn.read(path)
    except HypernetworkError as error:
        return str(error)


@settings(max_examples=100)
@given(changes=st.dictionaries(KEYS, VALUES, max_size=3), zipped_=st.booleans())
def test_any_value_under_any_key(tmp_path: Path, changes: dict[Any, Any], zipped_: bool) -> None:
    path = (save_zip if zipped_ else save_legacy)(Recipe().content() | changes, tmp_path / "a.pt")
    made = outcome(path)
    if isinstance(made, hn.Hypernetwork):
        assert made.transform(torch.zeros(1, 1, 8))[0].shape == (1, 1, 8)
    else:
        assert made.isprintable()
