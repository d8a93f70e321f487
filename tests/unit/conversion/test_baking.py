"""Networks baked into checkpoints: what the copy computes, what it leaves alone, and how it
fails."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch
from conversion_cases import PREFIX, checkpoint, network, output, share_of_effect, small_unet
from safetensors.torch import load_file, save_file

import hypernetworks as hn
from hypernetworks.conversion import Base, Weighted, bake, baking
from hypernetworks.errors import (
    CheckpointError,
    FileWriteError,
    HypernetworkError,
    NoMatchingWidthError,
    StructureError,
)


@pytest.fixture(scope="module")
def unet() -> torch.nn.Module:
    return small_unet()


def baked(base: Path, target: Path, *networks: Weighted) -> int:
    with Base(base) as opened:
        return bake(opened, networks, target)


def loaded(path: Path) -> torch.nn.Module:
    unet = small_unet(1)
    tensors = load_file(path)
    unet.load_state_dict(
        {n.removeprefix(PREFIX): t.float() for n, t in tensors.items() if n.startswith(PREFIX)}
    )
    return unet


@pytest.mark.parametrize("multiplier", ["1", "0.5", "-0.7", "2", "1:k=0.5:attn=cross"])
@pytest.mark.parametrize(
    ("dtype", "most"), [(torch.float32, 1e-4), (torch.float16, 5e-3), (torch.bfloat16, 4e-2)]
)
def test_the_copy_computes_what_the_networks_do(
    unet: torch.nn.Module, tmp_path: Path, multiplier: str, dtype: torch.dtype, most: float
) -> None:
    base = checkpoint(tmp_path / "base.safetensors", unet, dtype)
    style = Weighted(network("style", 1), hn.Multiplier.parse(multiplier))
    baked(base, tmp_path / "baked.safetensors", style)
    plain = loaded(base)
    with hn.apply(plain, [(style.network, style.multiplier)]):
        wanted = output(plain)
    made = output(loaded(tmp_path / "baked.safetensors"))
    assert share_of_effect(made, wanted, output(plain)) < most


def test_two_networks_act_in_their_order(unet: torch.nn.Module, tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base.safetensors", unet)
    a, b = (
        Weighted(network(n, s, std=0.4), hn.Multiplier.of(0.8)) for n, s in (("a", 1), ("b", 2))
    )
    baked(base, tmp_path / "ab.safetensors", a, b)
    baked(base, tmp_path / "ba.safetensors", b, a)
    with hn.apply(unet, [(a.network, 0.8), (b.network, 0.8)]):
        wanted = output(unet)
    plain = output(unet)
    assert share_of_effect(output(loaded(tmp_path / "ab.safetensors")), wanted, plain) < 1e-4
    assert share_of_effect(output(loaded(tmp_path / "ba.safetensors")), wanted, plain) > 1e-3


def test_all_other_bytes_stay(unet: torch.nn.Module, tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base.safetensors", unet)
    text_only = Weighted(network("style", 1, widths=(12,)))
    count = baked(base, tmp_path / "baked.safetensors", text_only)
    before, after = base.read_bytes(), (tmp_path / "baked.safetensors").read_bytes()
    assert len(before) == len(after)
    with Base(base) as opened:
        (file,) = opened.files
        changed = set()
        for name, entry in file.entries.items():
            part = slice(entry.offset, entry.offset + entry.length)
            if before[part] != after[part]:
                changed.add(name)
        assert before[: file.data_start] == after[: file.data_start]
    assert len(changed) == count == 16 * 3
    assert all(".attn2.to_" in name and name.startswith(PREFIX) for name in changed)


def folder(at: Path, unet: torch.nn.Module, *, shards: int = 1) -> Path:
    """A diffusers folder as far as baking goes, under diffusers' names."""
    from hypernetworks.conversion.layers import find_layers

    tensors = {f"{PREFIX}{n}": t.contiguous() for n, t in unet.state_dict().items()}
    layers = find_layers({name: tuple(t.shape) for name, t in tensors.items()})
    renamed = {
        f"{layer.path}.{leaf}": tensors[f"{layer.stored}.{leaf}"]
        for layer in layers
        for leaf in ("to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias")
    }
    (at / "unet").mkdir(parents=True)
    (at / "vae").mkdir()
    (at / "vae" / "config.json").write_text("{}")
    (at / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"old")
    names = sorted(renamed)
    if shards == 1:
        save_file(renamed, at / "unet" / "diffusion_pytorch_model.safetensors")
        return at
    where = {name: f"part-{i % shards}.safetensors" for i, name in enumerate(names)}
    for shard in set(where.values()):
        save_file({n: renamed[n] for n in names if where[n] == shard}, at / "unet" / shard)
    index = at / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    return at


@pytest.mark.parametrize("shards", [1, 3])
def test_a_diffusers_folder_gives_a_folder(
    unet: torch.nn.Module, tmp_path: Path, shards: int
) -> None:
    base = checkpoint(tmp_path / "base.safetensors", unet)
    style = Weighted(network("style", 1))
    baked(base, tmp_path / "baked.safetensors", style)
    source = folder(tmp_path / "model", unet, shards=shards)
    baked(source, tmp_path / "new", style)
    assert (tmp_path / "new" / "vae" / "config.json").read_text() == "{}"
    assert not (tmp_path / "new" / "unet" / "diffusion_pytorch_model.bin").exists()
    with Base(tmp_path / "new") as new, Base(tmp_path / "baked.safetensors") as one:
        originals = {layer.path: layer for layer in one.layers}
        assert {layer.path for layer in new.layers} == set(originals)
        for layer in new.layers:
            other = originals[layer.path]
            assert layer.block == other.block
            for mine, theirs in ((layer.key, other.key), (layer.out_bias, other.out_bias)):
                assert torch.equal(new.tensor(mine), one.tensor(theirs))
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_an_existing_folder_is_left_alone(unet: torch.nn.Module, tmp_path: Path) -> None:
    source = folder(tmp_path / "model", unet)
    (tmp_path / "there").mkdir()
    for target in ("there", "model"):
        with pytest.raises(FileWriteError, match="exists"):
            baked(source, tmp_path / target, Weighted(network("style", 1)))


@pytest.mark.parametrize(
    ("made", "error"),
    [
        (network("x", 1, hn.Structure((1, 2, 1), "relu")), StructureError),
        (network("x", 1, widths=(768, 8)), NoMatchingWidthError),
    ],
)
def test_networks_that_do_not_fit_write_nothing(
    unet: torch.nn.Module, tmp_path: Path, made: hn.Hypernetwork, error: type[Exception]
) -> None:
    base = checkpoint(tmp_path / "base.safetensors", unet)
    with pytest.raises(error):
        baked(base, tmp_path / "baked.safetensors", Weighted(made))
    assert [p.name for p in tmp_path.iterdir()] == ["base.safetensors"]


def test_the_checkpoint_itself_is_no_target(unet: torch.nn.Module, tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base.safetensors", unet)
    before = base.read_bytes()
    with pytest.raises(FileWriteError, match="checkpoint itself"):
        baked(base, base, Weighted(network("style", 1)))
    assert base.read_bytes() == before


def test_a_full_disk_is_noticed_before_the_work(
    unet: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = checkpoint(tmp_path / "base.safetensors", unet)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(baking.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(FileWriteError, match="0 MB free"):
        baked(base, tmp_path / "baked.safetensors", Weighted(network("style", 1)))


@pytest.mark.parametrize(
    ("failure", "error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), FileWriteError, "No space left"),
        (MemoryError(), HypernetworkError, "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: not enough memory"), HypernetworkError, "not enough"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
def test_a_failure_in_the_middle_leaves_nothing_and_loses_nothing(
    unet: torch.nn.Module,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    error: type[BaseException],
    said: str | None,
) -> None:
    base, target = checkpoint(tmp_path / "base.safetensors", unet), tmp_path / "baked.safetensors"
    target.write_bytes(b"what was there")
    calls = []

    def fail(*arguments: object) -> torch.Tensor:
        calls.append(arguments)
        if len(calls) == 9:
            raise failure
        return added(*arguments)  # type: ignore[arg-type]

    added = baking._added
    monkeypatch.setattr(baking, "_added", fail)
    with pytest.raises(error, match=said):
        baked(base, target, Weighted(network("style", 1)))
    assert target.read_bytes() == b"what was there"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["baked.safetensors", "base.safetensors"]


def test_a_checkpoint_that_changes_meanwhile_is_noticed(
    unet: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = checkpoint(tmp_path / "base.safetensors", unet)

    def touch(*arguments: object) -> torch.Tensor:
        with base.open("ab") as file:
            file.write(b"more")
        return added(*arguments)  # type: ignore[arg-type]

    added = baking._added
    monkeypatch.setattr(baking, "_added", touch)
    with pytest.raises(CheckpointError, match="changed while it was read"):
        baked(base, tmp_path / "baked.safetensors", Weighted(network("style", 1)))
    assert [p.name for p in tmp_path.iterdir()] == ["base.safetensors"]


def test_numbers_beyond_the_type_are_refused(unet: torch.nn.Module, tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base.safetensors", unet, torch.float16)
    with pytest.raises(CheckpointError, match="can't hold"):
        baked(base, tmp_path / "baked.safetensors", Weighted(network("style", 1, std=300)))
    assert [p.name for p in tmp_path.iterdir()] == ["base.safetensors"]
