"""What is not a UNet or a list of networks gets the right call, not a traceback from inside."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import hypernetworks as hn
from hypernetworks.engine.multiplier import Multiplier
from hypernetworks.engine.network import Hypernetwork
from hypernetworks.engine.structure import Structure
from hypernetworks.errors import (
    FileError,
    HypernetworkError,
    MultiplierError,
    PatchError,
    TagError,
)
from hypernetworks.prompts import Tag

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


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: hn.read(None), FileError, r'write read\("ink.pt"\)'),  # type: ignore[arg-type]
        (lambda: hn.write(NETWORK, None), FileError, "write write"),  # type: ignore[arg-type]
        (lambda: hn.Library(None), HypernetworkError, "write Library"),  # type: ignore[arg-type]
        (lambda: hn.parse(None), TagError, "write parse"),  # type: ignore[arg-type]
        (lambda: hn.parse(b"a cat"), TagError, "write parse"),  # type: ignore[arg-type]
        (lambda: Tag.of("ink", 10**400), MultiplierError, "range of a float"),
        (lambda: Tag.of("ink", float("inf")), MultiplierError, "finite"),
        (lambda: NETWORK.transform(torch.ones(1, 8), 10**400), MultiplierError, "range"),
        (lambda: Multiplier.of(10**400), MultiplierError, "range of a float"),
    ],
)
def test_the_other_doors_show_the_right_call_too(
    call: Callable[[], object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("multiplier", [None, 10**400, float("inf"), float("nan"), object(), [1]])
def test_what_is_no_multiplier(multiplier: Any) -> None:
    with pytest.raises(MultiplierError):
        Multiplier.of(multiplier)
