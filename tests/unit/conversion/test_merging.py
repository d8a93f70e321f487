"""Several networks as one, and smaller ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conversion_cases import LINEAR, network, output, share_of_effect, small_unet

import hypernetworks as hn
from hypernetworks.cli import main
from hypernetworks.conversion import Weighted
from hypernetworks.conversion.merging import merge, resize
from hypernetworks.errors import StructureError

RELU = hn.Structure((1, 2, 1), "relu", activate_output=False)


def weighted(
    seed: int, multiplier: str, structure: hn.Structure = LINEAR, **more: object
) -> Weighted:
    made = network(f"n{seed}", seed, structure, **more)  # type: ignore[arg-type]
    return Weighted(made, hn.Multiplier.parse(multiplier))


def test_linear_networks_merge_exactly() -> None:
    a, b, c = weighted(1, "0.5"), weighted(2, "-0.7:k=0.5"), weighted(3, "0.3", widths=(12,))
    made = merge("all", [a, b, c])
    assert made.exact
    unet = small_unet()
    plain = output(unet)
    with hn.apply(unet, [(w.network, w.multiplier) for w in (a, b, c)]):
        wanted = output(unet)
    with hn.apply(unet, [(made.network, 1.0)]):
        assert share_of_effect(output(unet), wanted, plain) < 1e-4
    with hn.apply(unet, [(a.network, a.multiplier)]):
        assert share_of_effect(output(unet), wanted, plain) > 0.01


def test_joined_networks_add_up_and_say_how_far_that_is_from_in_order() -> None:
    a, b = weighted(1, "0.5", RELU), weighted(2, "0.5:v=2", hn.Structure((1, 3, 1), "relu", False))
    made = merge("both", [a, b])
    assert made.network.structure.layer_structure == (1, 5, 1)
    context = torch.randn(4, 12, generator=torch.Generator().manual_seed(0))
    for side, second in ((0, 0.5), (1, 1.0)):
        sums = 0.5 * a.network.pairs[12][side](context) + second * b.network.pairs[12][side](
            context
        )
        torch.testing.assert_close(made.network.pairs[12][side](context), sums)
    assert 0.01 < made.error < 1
    assert not made.exact
    alone = merge("one", [a])
    assert alone.exact


@pytest.mark.parametrize(
    "other",
    [
        ("0.5", hn.Structure((1, 2, 1), "tanh", False)),
        ("0.5", hn.Structure((1, 2, 2, 1), "relu", False, dropout=(0, 0, 0, 0))),
        ("0.5", hn.Structure((1, 2, 1), "relu", True)),
        ("0.5", LINEAR),
        ("0.5:attn=cross", RELU),
        ("0.5:lbw=ALL", RELU),
    ],
)
def test_others_are_refused(other: tuple[str, hn.Structure]) -> None:
    with pytest.raises(StructureError, match=r"can't be joined|differs from layer to layer"):
        merge("both", [weighted(1, "0.5", RELU), weighted(2, *other)])


def test_resizing_keeps_what_has_that_rank_and_measures_the_rest() -> None:
    narrow = network("narrow", 1, hn.Structure((1, 0.5, 1)))
    assert resize(narrow, 0.5).exact
    errors = [resize(narrow, multiple).error for multiple in (0.25, 0.125)]
    assert 0 < errors[0] < errors[1] < 1
    with pytest.raises(StructureError, match="not linear"):
        resize(network("x", 1, RELU), 0.5)
    with pytest.raises(StructureError, match="too few"):
        resize(narrow, 0.01)


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, name in ((1, "a"), (2, "b")):
        hn.write(network(name, seed), tmp_path / f"{name}.pt")
    a, b, both = (tmp_path / f"{name}.pt" for name in ("a", "b", "both"))
    assert main(["merge", f"{a}:0.5", f"{b}:-0.5", "-o", str(both)]) == 0
    assert "the same as applying" in capsys.readouterr().out
    assert hn.read(both).structure.layer_structure == (1, 1)
    assert main(["resize", str(both), "--hidden", "0.25", "-o", str(both)]) == 2
    assert "exists" in capsys.readouterr().err
    assert main(["resize", str(both), "--hidden", "0.25", "-o", str(both), "--overwrite"]) == 0
    assert "% of the effect" in capsys.readouterr().out
    assert main(["merge", f"{tmp_path}/none.pt:1", "-o", str(tmp_path / "x.pt")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_convert_and_bake_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from conversion_cases import checkpoint

    base = checkpoint(tmp_path / "base.safetensors", small_unet())
    hn.write(network("a", 1), tmp_path / "a.pt")
    hn.write(network("r", 1, RELU), tmp_path / "r.pt")
    lora, a = tmp_path / "lora.safetensors", f"{tmp_path / 'a.pt'}:0.7"
    command = ["convert", a, str(lora), "--to", "lora"]
    assert main(command) == 2
    assert "--base" in capsys.readouterr().err
    assert main([*command, "--base", str(base), "--network", a, "--rank", "4"]) == 0
    assert "rank 4, error" in capsys.readouterr().out
    assert lora.is_file()
    assert main(["bake", str(base), a, "-o", str(tmp_path / "baked.safetensors")]) == 0
    assert "tensors changed" in capsys.readouterr().out
    for network_text, said in ((str(tmp_path / "r.pt"), "not linear"), (f"{a}@0,1@1", "sampling")):
        output_file = tmp_path / "more.safetensors"
        assert main(["bake", str(base), network_text, "-o", str(output_file)]) == 2
        assert said in capsys.readouterr().err
        assert not output_file.exists()
