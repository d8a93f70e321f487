"""Whether a network fits the loaded model: by its family, not by widths that match by chance."""

from __future__ import annotations

import pytest
from torch import nn

from hypernetworks.engine.multiplier import Multiplier
from hypernetworks.engine.network import Hypernetwork
from hypernetworks.engine.structure import Structure
from hypernetworks.errors import NoMatchingWidthError
from hypernetworks.hosts.fit import check_fit
from hypernetworks.patching import Site

REFINER = {"self": (768, 1536), "cross": (1280,)}
SD1 = {"self": (320, 640, 1280), "cross": (768,)}
SDXL = {"self": (640, 1280), "cross": (2048,)}
ODD = {"self": (768,), "cross": (4096,)}
PACKED = {"self": (None,), "cross": (None,)}


def sites(model: dict[str, tuple[int | None, ...]]) -> list[Site]:
    here = nn.Identity()
    return [
        Site(f"{kind}.{width}", here, here, kind, "IN04", width)
        for kind, widths in model.items()
        for width in widths
    ]


def network(*widths: int) -> Hypernetwork:
    return Hypernetwork.create("n", Structure((1.0, 1.0), dropout=(0.0, 0.0)), widths)


@pytest.mark.parametrize(
    ("widths", "model", "words"),
    [
        ((320, 640, 768, 1280), REFINER, "SD1 .*SDXL refiner"),
        ((768,), REFINER, "SD1 .*SDXL refiner"),
        ((640, 1280, 2048), REFINER, "SDXL .*SDXL refiner"),
        ((320, 640, 1024, 1280), REFINER, "SD2"),
        ((768,), ODD, "SD1 .*another kind .*4096"),
        ((640, 1280, 2048), SD1, "SDXL .*SD1"),
        ((320, 640, 768, 1280), SDXL, "SD1 .*SDXL"),
    ],
)
def test_another_familys_network_is_refused(
    widths: tuple[int, ...], model: dict[str, tuple[int | None, ...]], words: str
) -> None:
    with pytest.raises(NoMatchingWidthError, match=words):
        check_fit(network(*widths), Multiplier(), sites(model))
    if set(widths) & {width for kind in model.values() for width in kind}:
        check_fit(network(*widths), Multiplier(), sites(model), any_family=True)


@pytest.mark.parametrize(
    ("widths", "model"),
    [
        ((768, 1280, 1536), REFINER),
        ((1280,), REFINER),
        ((320, 640, 768, 1280), SD1),
        ((768,), SD1),
        ((320, 640), SD1),
        ((640, 1280, 2048), SDXL),
        ((320, 640, 768, 1280), PACKED),
    ],
)
def test_a_network_that_was_made_for_the_model_fits(
    widths: tuple[int, ...], model: dict[str, tuple[int | None, ...]]
) -> None:
    check_fit(network(*widths), Multiplier(), sites(model))
