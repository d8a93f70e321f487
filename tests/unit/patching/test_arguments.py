"""What is not a UNet or a list of networks gets the right call, not a traceback from inside."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

import hypernetworks as hn
from hypernetworks.engine.multiplier import Multiplier
from hypernetworks.engine.network import Hypernetwork
from hypernetworks.engine.structure import Structure
from hypernetworks.errors import MultiplierError, PatchError

NETWORK = Hypernetwork.create("n", Structure((1.0, 1.0), dropout=(0.0, 0.0)), (8,))
UNET = nn.Linear(8, 8)


@pytest.mark.parametrize(
    ("unet", "networks"),
    [
        (SimpleNamespace(unet=UNET), [(NETWORK, 1.0)]),
        (None, [(NETWORK, 1.0)]),
        ("unet", []),
        (UNET, [NETWORK]),
        (UNET, NETWORK),
        (UNET, (NETWORK, 1.0)),
        (UNET, None),
        (UNET, "ink"),
        (UNET, [("ink", 1.0)]),
        (UNET, [(NETWORK, 1.0, 2.0)]),
    ],
)
def test_the_right_call_is_shown(unet: Any, networks: Any) -> None:
    with pytest.raises(PatchError, match=r"write apply\(pipeline\.unet, \[\(network, 0\.7\)\]\)"):
        hn.apply(unet, networks)


@pytest.mark.parametrize("multiplier", [None, 10**400, float("inf"), float("nan"), object(), [1]])
def test_what_is_no_multiplier(multiplier: Any) -> None:
    with pytest.raises(MultiplierError):
        Multiplier.of(multiplier)
