"""Every variant of file in the wild, read with the right arithmetic or refused by name; and what is
written."""

from __future__ import annotations

import errno
import os
import pickletools
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import BATCH_COUPLING, Content, Recipe, Reference, as_stored, recipes, relative_error
from safetensors import safe_open
from torch import nn
from unit.files.containers import TORCH_CONTAINERS, save_legacy, save_safetensors, save_zip

import hypernetworks as hn
from hypernetworks.engine.network import Provenance
from hypernetworks.errors import (
    FileError,
    FileWriteError,
    HypernetworkError,
    NotAHypernetworkError,
    StructureError,
    UnsupportedVariantError,
)
from hypernetworks.files import SUFFIXES, writing

WEBUI_MEMBERS = re.compile(r"^([^/]+)/((data/\d+)|version|byteorder|(data\.pkl))$")
"""Zip members that AUTOMATIC1111 1.10.1 lets pass."""

Disguised = tuple[Content, Content]
"""What the file holds, and the dictionary of today's form that it must be read as."""


def novelai() -> Disguised:
    plain = {width: pair for width, pair in Recipe((8, 16)).content().items() if type(width) is int}
    names = {"linear.0.": "linear1.", "linear.1.": "linear2."}
    renamed = {
        width: tuple(
            {names[key[:9]] + key[9:]: tensor for key, tensor in state.items()} for state in pair
        )
        for width, pair in plain.items()
    }
    return renamed, plain


def without(content: Content, *keys: str) -> Content:
    return {key: value for key, value in content.items() if key not in keys}


def early() -> Disguised:
    content = Recipe(activation="relu", layer_norm=True).content()
    gone = (
        "activate_output",
        "use_dropout",
        "dropout_structure",
        "last_layer_dropout",
        "optional_info",
    )
    return without(content, *gone), content


def early_without_norm() -> Disguised:
    content = Recipe(layer_structure=(1, 1.5, 2, 1), activation="leakyrelu").content()
    return without(content, "activate_output", "dropout_structure", "optional_info"), content


def early_dropout(last: bool) -> Disguised:
    content = Recipe(
        layer_structure=(1, 2, 3, 2, 1),
        activation="relu",
        dropout=(0, 0.3, 0.3, 0.3 if last else 0, 0),
    ).content()
    return without(content, "dropout_structure"), content


def middle() -> Disguised:
    content = Recipe(activation="tanh").content()
    state = {
        "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(8, 8)}},
        "param_groups": [{"lr": 1e-5}],
    }
    return content | {"optimizer_name": "AdamW", "optimizer_state_dict": state}, content


def kohya(layer_norm: object = False) -> Disguised:
    recipe = Recipe(
        (8, 16), activation="relu", activate_output=False, layer_norm=layer_norm in (True, "True")
    )
    content = recipe.content()
    stored = without(content, "activate_output") | {
        "enable_sizes": [8, 16],
        "is_layer_norm": layer_norm,
    }
    return stored | {width: list(content[width]) for width in (8, 16)}, content


def kohya_that_says() -> Disguised:
    content = Recipe(activation="relu", activate_output=True).content()
    return content | {"enable_sizes": [8]}, content


def string_sizes() -> Disguised:
    content = Recipe((8, 16), activation="elu").content()
    return {str(key): value for key, value in content.items()}, content


def unstructured() -> Disguised:
    content = Recipe((8, 16), (1, 2, 0.5, 1), layer_norm=True).content()
    return {key: value for key, value in content.items() if type(key) is int}, content


def later_writers() -> Disguised:
    """What newer torch and numpy put into a pickle: parameters, OrderedDict with a state, scalars,
    torch.Size."""
    content = Recipe(activation="gelu").content()
    states = []
    for state in content[8]:
        ordered: OrderedDict[str, Any] = OrderedDict(
            (key, nn.Parameter(tensor)) for key, tensor in state.items()
        )
        ordered._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
        states.append(ordered)
    return content | {8: tuple(states), "layer_structure": torch.Size([1, 2, 1])}, content


def as_is(**recipe: Any) -> Callable[[], Disguised]:
    def make() -> Disguised:
        content = Recipe(**recipe).content()
        return as_stored(content), content

    return make


VARIANTS: dict[str, Callable[[], Disguised]] = {
    "NovelAI": novelai,
    "early, with layer norm": early,
    "early, without": early_without_norm,
    "early, dropout but not last": lambda: early_dropout(False),
    "early, dropout and last": lambda: early_dropout(True),
    "middle, optimizer inside": middle,
    "final": as_is(widths=(8, 16), activation="mish", layer_norm=True, dropout=(0, 0.25, 0)),
    "final, linear": as_is(widths=(8, 16)),
    "final, output not activated": as_is(activation="relu", activate_output=False),
    "kohya": kohya,
    'kohya, norm is "True"': lambda: kohya("True"),
    'kohya, norm is "False"': lambda: kohya("False"),
    "kohya, says activate_output": kohya_that_says,
    "string sizes": string_sizes,
    "activation None": as_is(activation=None, dropout=(0, 0.3, 0)),
    "activation linear": as_is(activation="linear", dropout=(0, 0.3, 0)),
    "fp16": as_is(dtype=torch.float16),
    "bf16": as_is(dtype=torch.bfloat16, activation="silu"),
    "fp64": as_is(dtype=torch.float64, activation="gelu"),
    "prelu": as_is(activation="prelu", layer_structure=(1, 2, 2, 1), dropout=(0, 0.3, 0, 0)),
    "prelu and norm": as_is(activation="prelu", layer_norm=True),
    "prelu, output not activated": as_is(activation="prelu", activate_output=False),
    "SD2's width": as_is(widths=(1024,), layer_structure=(1, 0.01, 1), activation="relu"),
    "SDXL's width": as_is(widths=(2048,), layer_structure=(1, 0.005, 1)),
    "odd widths": as_is(widths=(5, 7, 33), layer_structure=(1, 1.3, 1), activation="softsign"),
    "norm, activation, dropout": as_is(
        activation="swish", layer_norm=True, layer_structure=(1, 2, 2, 1), dropout=(0, 0.1, 0, 0)
    ),
    "one layer": as_is(layer_structure=(1, 1), activation="tanh"),
    "no metadata": unstructured,
    "written by newer torch": later_writers,
} | {kind: as_is(activation=kind) for kind in BATCH_COUPLING}


def assert_reads_as(path: Path, content: Content) -> hn.Hypernetwork:
    """The file gives exactly the networks of the dictionary, with its arithmetic."""
    net, reference = hn.read(path), Reference(content)
    assert net.widths == tuple(sorted(reference.pairs))
    assert net.name == path.name.removesuffix(path.suffix)
    for width in net.widths:
        x = torch.randn(2, 3, width, generator=torch.Generator().manual_seed(width))
        for side in (0, 1):
            changed = net.transform(x, 0.9)[side]
            assert relative_error(changed, reference(x, side, 0.9)) <= 1e-5
            assert relative_error(changed, x) > 1e-2
            assert (
                net.pairs[width][side].linear[0].weight.dtype
                == content[width][side]["linear.0.weight"].dtype
            )
    return net


def tensors_of(content: Content) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors of the networks of a dictionary, with a name for each."""
    for size, pair in content.items():
        if str(size).isdigit():
            for side, state in enumerate(pair):
                yield from ((f"{size}.{side}.{key}", tensor) for key, tensor in state.items())


@pytest.mark.parametrize("container", TORCH_CONTAINERS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants(variant: str, container: str, tmp_path: Path) -> None:
    stored, content = VARIANTS[variant]()
    assert_reads_as(TORCH_CONTAINERS[container](stored, tmp_path / "a net.pt"), content)


@pytest.mark.parametrize("container", TORCH_CONTAINERS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_reader_agrees_with_torch(variant: str, container: str, tmp_path: Path) -> None:
    path = TORCH_CONTAINERS[container](VARIANTS[variant]()[0], tmp_path / "net.pt")
    net = hn.read(path)
    theirs = dict(tensors_of(torch.load(path, weights_only=True)))
    ours = dict(
        tensors_of({w: tuple(mlp.state_dict() for mlp in pair) for w, pair in net.pairs.items()})
    )
    if variant == "NovelAI":
        theirs = {
            k.replace("linear1", "linear.0").replace("linear2", "linear.1"): v
            for k, v in theirs.items()
        }
    assert ours.keys() == theirs.keys()
    assert all(
        ours[name].dtype == tensor.dtype and torch.equal(ours[name], tensor)
        for name, tensor in theirs.items()
    )


@pytest.mark.parametrize(
    "variant", [name for name, make in VARIANTS.items() if make()[0].keys() == make()[1].keys()]
)
def test_variants_as_safetensors(variant: str, tmp_path: Path) -> None:
    content = VARIANTS[variant]()[1]
    assert_reads_as(save_safetensors(content, tmp_path / "net.safetensors"), content)


@pytest.mark.parametrize(
    "suffix", [".pt", ".bin", ".ckpt", ".pth", ".PT", ".safetensors", ".v2.pt", ""]
)
@pytest.mark.parametrize("save", [save_zip, save_legacy, save_safetensors])
def test_the_content_decides_and_not_the_suffix(
    suffix: str, save: Callable[[Content, Path], Path], tmp_path: Path
) -> None:
    content = Recipe(activation="relu").content()
    assert_reads_as(save(content, tmp_path / f"some net{suffix}"), content)


def test_all_suffixes_are_listed() -> None:
    assert {".pt", ".bin", ".ckpt", ".pth", ".safetensors"} == set(SUFFIXES)


def test_numpy_scalars_in_the_metadata(tmp_path: Path) -> None:
    content = Recipe(activation="relu", dropout=(0, 0.5, 0)).content()
    scalars = {
        "step": np.int64(12345),
        "is_layer_norm": np.bool_(False),
        "layer_structure": [1, np.float64(2.0), np.int32(1)],
        "dropout_structure": [0, np.float32(0.5), 0],
    }
    net = assert_reads_as(save_zip(content | scalars, tmp_path / "net.pt"), content)
    assert net.provenance.step == 12345
    assert net.structure.dropout == (0.0, 0.5, 0.0)


def test_provenance_is_shown_and_the_name_is_the_file(tmp_path: Path) -> None:
    content = Recipe(seed=7).content() | {"name": "foo"}
    net = hn.read(save_zip(content, tmp_path / "foo-1000.pt"))
    assert net.name == "foo-1000"
    assert net.provenance == Provenance(
        "foo", 1007, "fe4efff1e1", "model", "Normal", "made by a test"
    )


def test_defaults_of_provenance(tmp_path: Path) -> None:
    net = hn.read(save_zip(novelai()[0], tmp_path / "old.pt"))
    assert net.provenance == Provenance(None, 0, None, None, "Normal", None)
    assert net.structure == hn.Structure((1.0, 2.0, 1.0), "linear", True, False, (0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    "step", ["12", None, float("nan"), float("inf"), [1], torch.tensor(5), -3, 10**30]
)
def test_a_strange_step_does_no_harm(step: object, tmp_path: Path) -> None:
    net = hn.read(save_zip(Recipe().content() | {"step": step}, tmp_path / "net.pt"))
    assert net.provenance.step == {"tensor(5)": 5, "-3": -3}.get(str(step), 0)


def test_a_dropout_network_gives_the_same_picture_twice(tmp_path: Path) -> None:
    net = hn.read(
        save_zip(Recipe(activation="relu", dropout=(0, 0.9, 0)).content(), tmp_path / "net.pt")
    )
    x = torch.ones(1, 4, 8)
    assert all(map(torch.equal, net.transform(x), net.transform(x)))


@pytest.mark.parametrize("container", TORCH_CONTAINERS)
def test_it_reads_where_a_webui_has_replaced_torch_load(
    container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = Recipe(activation="relu").content()
    path = TORCH_CONTAINERS[container](content, tmp_path / "net.pt")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("torch.load was called")

    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr(torch.serialization, "load", refuse)
    assert_reads_as(path, content)


def test_an_empty_optim_beside_a_file_is_left_alone(tmp_path: Path) -> None:
    content = Recipe().content()
    path = save_zip(content, tmp_path / "net.pt")
    (tmp_path / "net.pt.optim").write_bytes(b"")
    assert_reads_as(path, content)


# Refused by name


def residual() -> Content:
    state = {
        "linear.0.linear.0.weight": torch.zeros(16, 8),
        "linear.0.linear.0.bias": torch.zeros(16),
        "linear.0.upsample_linear.weight": torch.zeros(16, 8),
    }
    return {8: (state, state), "skip_connection": True, "layer_structure": [1, 2, 1]}


def with_state(
    change: Callable[[dict[str, torch.Tensor]], object], sides: int = 1, **recipe: Any
) -> Content:
    """A dictionary whose network for keys, or both, was changed in one place."""
    content = Recipe(**recipe).content()
    for state in content[8][:sides]:
        change(state)
    return content


def rename(state: dict[str, torch.Tensor], old: int, new: int) -> None:
    for part in ("weight", "bias"):
        if f"linear.{old}.{part}" in state:
            state[f"linear.{new}.{part}"] = state.pop(f"linear.{old}.{part}")


REFUSED: dict[str, tuple[Callable[[], object], type[HypernetworkError], str]] = {
    "residual blocks": (residual, UnsupportedVariantError, "residual"),
    "residual blocks by flag": (
        lambda: Recipe().content() | {"skip_connection": True},
        UnsupportedVariantError,
        "residual",
    ),
    "side-car": (
        lambda: {"optimizer_name": "AdamW", "hash": "ab", "optimizer_state_dict": {"state": {}}},
        NotAHypernetworkError,
        r"optimizer state.*\.optim",
    ),
    "glu": (lambda: Recipe().content() | {"activation_func": "glu"}, StructureError, "glu"),
    "threshold": (
        lambda: Recipe().content() | {"activation_func": "threshold"},
        StructureError,
        "threshold",
    ),
    "multiheadattention": (
        lambda: Recipe().content() | {"activation_func": "multiheadattention"},
        StructureError,
        "multiheadattention",
    ),
    "unknown activation": (
        lambda: Recipe(activation="relu").content() | {"activation_func": "magic"},
        StructureError,
        "magic",
    ),
    "activation is a number": (
        lambda: Recipe().content() | {"activation_func": 3},
        StructureError,
        "activation_func",
    ),
    "size is not the width": (
        lambda: {9: Recipe().content()[8]},
        StructureError,
        "width 9 takes 8",
    ),
    "size zero": (lambda: Recipe().content() | {0: Recipe().content()[8]}, StructureError, "width"),
    "negative size": (
        lambda: Recipe().content() | {-8: Recipe().content()[8]},
        StructureError,
        "width",
    ),
    "one width twice": (
        lambda: Recipe().content() | {"8": Recipe().content()[8]},
        StructureError,
        "two networks",
    ),
    "widths built differently": (
        lambda: Recipe().content() | {16: Recipe((16,), layer_norm=True).content()[16]},
        StructureError,
        "differently",
    ),
    "no pair": (lambda: Recipe().content() | {8: Recipe().content()[8][0]}, StructureError, "pair"),
    "three of them": (lambda: {8: (*Recipe().content()[8], {})}, StructureError, "pair"),
    "empty": (lambda: {8: ({}, {})}, StructureError, "empty"),
    "values empty": (
        lambda: {8: (Recipe().content()[8][0], {})},
        StructureError,
        "not a linear layer",
    ),
    "no networks": (lambda: {"layer_structure": [1, 2, 1]}, NotAHypernetworkError, "no networks"),
    "a list": (lambda: [1, 2, 3], NotAHypernetworkError, "list"),
    "a tensor": (lambda: torch.zeros(3), NotAHypernetworkError, "Tensor"),
    "norm, and metadata denies": (
        lambda: Recipe(layer_norm=True).content() | {"is_layer_norm": False},
        StructureError,
        "is_layer_norm",
    ),
    "no norm, and metadata claims": (
        lambda: Recipe().content() | {"is_layer_norm": True},
        StructureError,
        "is_layer_norm",
    ),
    "activated, and metadata says None": (
        lambda: Recipe(activation="relu").content() | {"activation_func": None},
        StructureError,
        "dropout_structure",
    ),
    "something between the layers that nothing tells": (
        lambda: without(
            Recipe(activation="relu").content(),
            "activation_func",
            "use_dropout",
            "dropout_structure",
        ),
        StructureError,
        "activation or a dropout",
    ),
    "not activated, and metadata says relu": (
        lambda: Recipe().content() | {"activation_func": "relu"},
        StructureError,
        "relu",
    ),
    "prelu, and metadata says relu": (
        lambda: Recipe(activation="prelu").content() | {"activation_func": "relu"},
        StructureError,
        "prelu",
    ),
    "prelu at the end, and metadata denies": (
        lambda: Recipe(activation="prelu").content() | {"activate_output": False},
        StructureError,
        "activate_output",
    ),
    "activation before the last norm, and metadata denies": (
        lambda: Recipe(activation="relu", layer_norm=True).content() | {"activate_output": False},
        StructureError,
        "activate_output",
    ),
    "other dropout": (
        lambda: Recipe(dropout=(0, 0.3, 0)).content() | {"dropout_structure": [0, 0, 0]},
        StructureError,
        "dropout_structure",
    ),
    "dropout of another length": (
        lambda: Recipe(dropout=(0, 0.3, 0)).content() | {"dropout_structure": [0, 0.3]},
        StructureError,
        "dropout",
    ),
    "other widths": (
        lambda: Recipe(layer_structure=(1, 2, 1)).content() | {"layer_structure": [1, 3, 1]},
        StructureError,
        "layers",
    ),
    "more layers": (
        lambda: Recipe(layer_structure=(1, 2, 1)).content() | {"layer_structure": [1, 2, 2, 1]},
        StructureError,
        "layer structure",
    ),
    "layer structure is text": (
        lambda: Recipe().content() | {"layer_structure": "1,2,1"},
        StructureError,
        "list",
    ),
    "layer structure has NaN": (
        lambda: Recipe().content() | {"layer_structure": [1, float("nan"), 1]},
        StructureError,
        "plausible",
    ),
    "a yes that is a tensor": (
        lambda: Recipe().content() | {"is_layer_norm": torch.zeros(2)},
        StructureError,
        "true or false",
    ),
    "bias is missing": (
        lambda: with_state(lambda s: s.pop("linear.0.bias")),
        StructureError,
        r"linear\.0",
    ),
    "an extra key": (
        lambda: with_state(lambda s: s.update(extra=torch.zeros(1))),
        StructureError,
        "extra",
    ),
    "a number is no tensor": (
        lambda: with_state(lambda s: s.update({"linear.0.bias": 3})),
        StructureError,
        "linear",
    ),
    "integers": (
        lambda: with_state(
            lambda s: s.update({"linear.0.bias": torch.zeros(16, dtype=torch.int64)})
        ),
        StructureError,
        "int64",
    ),
    "a number written in two ways": (
        lambda: with_state(lambda s: s.update({"linear.00.bias": s.pop("linear.0.bias")})),
        StructureError,
        "linear.00",
    ),
    "the first layer is not the first": (
        lambda: with_state(lambda s: rename(s, 0, 5)),
        StructureError,
        "first",
    ),
    "a hole before the last norm": (
        lambda: with_state(lambda s: rename(s, 3, 4), layer_norm=True),
        StructureError,
        "differently",
    ),
    "a wide hole before the last norm": (
        lambda: with_state(
            lambda s: rename(s, 4, 9), 2, activation="relu", layer_norm=True, activate_output=False
        ),
        StructureError,
        "fit",
    ),
    "a hole before the last prelu": (
        lambda: with_state(lambda s: rename(s, 3, 7), 2, activation="prelu"),
        StructureError,
        "fit",
    ),
    "a layer norm of another width": (
        lambda: with_state(
            lambda s: s.update({"linear.1.weight": torch.ones(4), "linear.1.bias": torch.ones(4)}),
            layer_norm=True,
        ),
        StructureError,
        "another width",
    ),
    "layers that do not fit together": (
        lambda: with_state(lambda s: s.update({"linear.1.weight": torch.zeros(8, 9)})),
        StructureError,
        "takes width 9",
    ),
}


@pytest.mark.parametrize("container", TORCH_CONTAINERS)
@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case: str, container: str, tmp_path: Path) -> None:
    make, kind, message = REFUSED[case]
    path = TORCH_CONTAINERS[container](make(), tmp_path / "the net.pt")
    with pytest.raises(kind, match=message) as caught:
        hn.read(path)
    assert type(caught.value) is kind
    assert str(caught.value).startswith("the net.pt: ")


def test_recipes_that_mix_networks_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "mix.hns").write_text("{'a.pt': 0.5, 'b.pt': (0.2, 'c.pt')}")
    (tmp_path / "renamed.pt").write_text("  ['a', ('b', 0.5)]")
    for name in ("mix.hns", "renamed.pt"):
        with pytest.raises(UnsupportedVariantError, match="hns"):
            hn.read(tmp_path / name)


# Writing


def write_and_load(recipe: Recipe, folder: Path, suffix: str = ".pt") -> tuple[Path, Content]:
    """A network read from one file and written to another; where, and what the first held."""
    content = recipe.content()
    path = folder / f"written{suffix}"
    hn.write(hn.read(save_zip(content, folder / "source.pt")), path)
    return path, content


FULL = Recipe((8, 16), (1, 1.5, 2, 1), "relu", True, True, (0, 0.1, 0, 0), torch.float16, 3)


def test_zip_members_that_the_webui_lets_pass(tmp_path: Path) -> None:
    path, _ = write_and_load(FULL, tmp_path)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    assert [name for name in names if not WEBUI_MEMBERS.match(name)] == []
    assert sum(name.endswith("/data.pkl") for name in names) == 1
    assert sum("/data/" in name for name in names) == 2 * 2 * (3 + 3) * 2, (
        "a storage for every tensor"
    )


def test_the_pickle_names_only_what_the_webui_lets_pass(tmp_path: Path) -> None:
    seen = set()
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        path, _ = write_and_load(Recipe(dtype=dtype, activation="relu"), tmp_path)
        with zipfile.ZipFile(path) as archive:
            pickled = archive.read(next(n for n in archive.namelist() if n.endswith("data.pkl")))
        operations = list(pickletools.genops(pickled))
        seen |= {argument for operation, argument, _ in operations if operation.name == "GLOBAL"}
        assert not {o.name for o, *_ in operations} & {
            "STACK_GLOBAL",
            "INST",
            "OBJ",
            "NEWOBJ",
            "NEWOBJ_EX",
            "EXT1",
        }
    storages = {f"torch {kind}Storage" for kind in ("Float", "Half", "BFloat16", "Double")}
    assert seen == storages | {"collections OrderedDict", "torch._utils _rebuild_tensor_v2"}


def test_torch_maps_what_is_written_and_the_webui_computes_the_same(tmp_path: Path) -> None:
    path, content = write_and_load(FULL, tmp_path)
    loaded = torch.load(str(path), weights_only=True, mmap=True)
    written = dict(tensors_of(loaded))
    assert all(torch.equal(written[name], tensor) for name, tensor in tensors_of(content))
    assert all(tensor.dtype == torch.float16 for tensor in written.values())
    x = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Reference(loaded)(x, 0, 1.0), Reference(content)(x, 0, 1.0))


def test_the_dictionary_that_is_written_has_plain_types(tmp_path: Path) -> None:
    path, content = write_and_load(FULL, tmp_path)
    loaded = torch.load(path, weights_only=True)
    assert loaded.keys() == content.keys()
    assert [key for key in loaded if type(key) is int] == [8, 16]
    assert all(
        type(pair) is tuple and all(type(s) is dict for s in pair)
        for pair in (loaded[8], loaded[16])
    )
    plain = {key: value for key, value in loaded.items() if type(key) is str}
    assert plain == {key: value for key, value in content.items() if type(key) is str} | {
        "use_dropout": False
    }
    assert any(plain["dropout_structure"])
    assert {type(value) for value in plain.values()} <= {int, str, bool, list}
    assert [type(number) for number in plain["layer_structure"]] == [int, float, int, int]


def test_tensors_in_a_written_file_are_aligned(tmp_path: Path) -> None:
    path, _ = write_and_load(FULL, tmp_path)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            extra = int.from_bytes(
                data[member.header_offset + 28 : member.header_offset + 30], "little"
            )
            start = member.header_offset + 30 + len(member.filename) + extra
            assert start % writing.ALIGNMENT == 0
            assert data[start : start + member.file_size] == archive.read(member)


@settings(max_examples=60)
@given(
    recipe=recipes(dtypes=(torch.float32, torch.float16, torch.bfloat16, torch.float64)),
    suffix=st.sampled_from([".pt", ".safetensors"]),
)
def test_round_trip(recipe: Recipe, suffix: str, tmp_path: Path) -> None:
    path, content = write_and_load(recipe, tmp_path, suffix)
    first, second = hn.read(tmp_path / "source.pt"), hn.read(path)
    assert second.structure == first.structure
    assert second.provenance == first.provenance
    assert second.dtype == first.dtype == recipe.dtype
    written = {w: tuple(mlp.state_dict() for mlp in pair) for w, pair in second.pairs.items()}
    assert dict(tensors_of(written)).keys() == dict(tensors_of(content)).keys()
    for name, tensor in tensors_of(content):
        assert torch.equal(dict(tensors_of(written))[name], tensor)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    "provenance",
    [
        Provenance(),
        Provenance(
            "ein Name: «ж» \u2603", 7, "abc", "a/b, c.ckpt", "XavierNormal", 'text\nwith "quotes"'
        ),
        Provenance("true", 10**12, "123", "null", "[1]", "{}"),
    ],
)
def test_provenance_round_trip(provenance: Provenance, suffix: str, tmp_path: Path) -> None:
    net = hn.read(save_zip(Recipe().content(), tmp_path / "source.pt"))
    net.provenance = provenance
    hn.write(net, tmp_path / f"a{suffix}")
    shown = hn.read(tmp_path / f"a{suffix}").provenance
    assert shown == (provenance if provenance.name else Provenance(name="a"))


def test_lines_of_the_free_text_end_at_newlines_alone(tmp_path: Path) -> None:
    """Captions in it are JSON, which may have a separator within a string."""
    net = hn.read(save_zip(Recipe().content(), tmp_path / "source.pt"))
    tags = '{"a\u2028b": 1}'
    net.provenance = Provenance(optional=f"ss_tag_frequency: {tags}\nss_seed: 1")
    hn.write(net, tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        told = file.metadata()
    assert (told["ss_tag_frequency"], told["ss_seed"]) == (tags, "1")


def test_plain_safetensors_reads_what_is_written(tmp_path: Path) -> None:
    path, content = write_and_load(FULL, tmp_path, ".safetensors")
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata()
        assert set(file.keys()) == {
            f"{w}.{s}.{k}"
            for w in (8, 16)
            for s, i in zip("kv", (0, 1), strict=True)
            for k in content[w][i]
        }
        assert torch.equal(
            file.get_tensor("16.v.linear.0.weight"), content[16][1]["linear.0.weight"]
        )
    assert all(type(key) is str and type(value) is str for key, value in metadata.items())
    assert metadata["hypernetwork"] == "1"
    assert metadata["format"] == "pt"
    assert metadata["layer_structure"] == "[1, 1.5, 2, 1]"


def test_a_newer_layout_and_broken_metadata_are_refused_by_name(tmp_path: Path) -> None:
    path = save_safetensors(Recipe().content(), tmp_path / "net.safetensors")
    for old, new, kind, message in (
        (b'"hypernetwork":"1"', b'"hypernetwork":"2"', UnsupportedVariantError, "update"),
        (b'"layer_structure":"[1', b'"layer_structure":"{1', StructureError, "not JSON"),
        (b"8.k.linear.0", b"8.q.linear.0", NotAHypernetworkError, "named"),
    ):
        data = path.read_bytes()
        assert data.count(old)
        (tmp_path / "changed.safetensors").write_bytes(data.replace(old, new))
        with pytest.raises(kind, match=message):
            hn.read(tmp_path / "changed.safetensors")


def test_writing_over_the_file_it_was_read_from(tmp_path: Path) -> None:
    path, content = write_and_load(Recipe(activation="relu"), tmp_path)
    net = hn.read(path)
    hn.write(net, path)
    assert_reads_as(path, content)
    assert torch.equal(net.pairs[8][0].linear[0].weight, content[8][0]["linear.0.weight"])


def test_a_new_file_has_the_usual_mode_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    net = hn.read(save_zip(Recipe().content(), tmp_path / "source.pt"))
    hn.write(net, tmp_path / "new.pt")
    (tmp_path / "plain").touch()
    assert (tmp_path / "new.pt").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "new.pt").chmod(0o640)
    hn.write(net, tmp_path / "new.pt")
    assert (tmp_path / "new.pt").stat().st_mode & 0o777 == 0o640


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


SAVERS = {".pt": "torch.save", ".safetensors": "hypernetworks.files.safetensors_files.json.dumps"}
BREAKS: dict[str, tuple[str, Callable[..., None], type[BaseException]]] = {
    "disk full while saving": ("", full_disk, FileWriteError),
    "interrupt while saving": ("", interrupt, KeyboardInterrupt),
    "disk full when flushed": ("os.fsync", full_disk, FileWriteError),
    "interrupt when flushed": ("os.fsync", interrupt, KeyboardInterrupt),
    "refused at the end": ("os.replace", full_disk, FileWriteError),
}


@pytest.mark.parametrize("existed", [True, False])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("case", BREAKS)
def test_a_failure_in_the_middle_leaves_everything_as_it_was(
    case: str, suffix: str, existed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, broken, kind = BREAKS[case]
    net = hn.read(save_zip(Recipe().content(), tmp_path / "source.pt"))
    path = tmp_path / f"target{suffix}"
    if existed:
        path.write_bytes(b"precious")
    before = {item.name: item.read_bytes() for item in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(where or SAVERS[suffix], broken)
        if where == "os.replace":
            patch.setattr(Path, "replace", broken)
        with pytest.raises(kind):
            hn.write(net, path)
    assert {item.name: item.read_bytes() for item in tmp_path.iterdir()} == before
    hn.write(net, path)
    assert hn.read(path).widths == (8,), "and the next attempt succeeds"


def test_half_written_bytes_never_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = hn.read(save_zip(Recipe().content(), tmp_path / "source.pt"))
    (tmp_path / "net.pt").write_bytes(b"precious")
    seen = []
    really = os.fsync

    def look(descriptor: int) -> None:
        really(descriptor)
        seen.append((tmp_path / "net.pt").read_bytes())

    monkeypatch.setattr(os, "fsync", look)
    hn.write(net, tmp_path / "net.pt")
    assert seen == [b"precious"]


@pytest.mark.parametrize(
    "name",
    [
        "net.txt",
        "net",
        "net.ckpt",
        "missing/net.pt",
        "folder.pt",
        "nul\0l.pt",
        "x" * 300 + ".safetensors",
    ],
)
def test_places_that_can_not_be_written(name: str, tmp_path: Path) -> None:
    net = hn.read(save_zip(Recipe().content(), tmp_path / "source.pt"))
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(FileWriteError) as caught:
        hn.write(net, tmp_path / name)
    assert isinstance(caught.value, FileError)
    assert isinstance(caught.value, OSError)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["folder.pt", "source.pt"]
