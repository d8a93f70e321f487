"""What the hooks cost compared with another version of this package: ``python -m benchmarks.against
FOLDER``.

Both are loaded into one process, the other one from ``FOLDER/hypernetworks`` (``git archive COMMIT
hypernetworks | tar -x -C FOLDER``), and act in turn on one full-size SD1.5 UNet with random
weights. Every round times all variants in a random order. Two things are timed: the hooks alone, on
contexts of one token, where the arithmetic is negligible; and whole calls. Both are given as a
share of a call without networks.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import hypernetworks as now

from . import cases
from .cases import ALL_WIDTHS, ActiveNetworks, Summary
from .seam import recorded, replaying

KINDS = {"linear, all widths": "linear", "relu, all widths": "relu"}
_OTHER = "hypernetworks_before"


def other_version(folder: Path) -> ModuleType:
    """The package in a folder, under another name: all its own imports are relative."""
    package = folder / "hypernetworks"
    found = importlib.util.spec_from_file_location(
        _OTHER, package / "__init__.py", submodule_search_locations=[str(package)]
    )
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[_OTHER] = module
    found.loader.exec_module(module)
    return module


def variants(unet: torch.nn.Module, versions: dict[str, Any]) -> dict[str, ActiveNetworks]:
    """No network, and the same networks applied by each version."""
    made: dict[str, ActiveNetworks] = {"no network": nullcontext}
    for kind, activation in KINDS.items():
        for name, version in versions.items():
            torch.manual_seed(0)
            structure = version.Structure((1, 2, 1), activation, activate_output=False)
            network = version.Hypernetwork.create("random", structure, ALL_WIDTHS)
            for parameter in network.parameters():
                torch.nn.init.normal_(parameter, std=0.01)
            made[f"{name}: {kind}"] = applied(version, unet, network)
    return made


def applied(version: Any, unet: torch.nn.Module, network: Any) -> ActiveNetworks:
    """One network at multiplier 1."""
    return lambda: version.apply(unet, [(network, 1.0)])


def more(times: dict[str, list[float]], kind: str, whole: float) -> Summary:
    """How much longer the present version takes than the other one, as a share of a bare call."""
    pairs = zip(times[f"now: {kind}"], times[f"before: {kind}"], strict=True)
    return Summary.of([(a - b) / whole for a, b in pairs])


def measure(folder: Path, size: int, rounds: int) -> dict[str, object]:
    """Times of the hooks alone and of whole calls, printed."""
    unet = cases.full_size_unet("cpu", torch.float32)
    order, numbers, inputs = recorded(unet, size)
    versions = {"before": other_version(folder), "now": now}
    short = [tensor[:1, :1] for tensor in inputs]

    def fresh() -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(2, 4, size // 8, size // 8), torch.randn(2, 77, 768)

    call: Callable[[Any], object] = lambda given: unet(given[0], 500, given[1])  # noqa: E731
    whole = cases.interleaved(variants(unet, versions), fresh, call, rounds, "whole calls")
    with replaying(unet, order, numbers):
        hooks = cases.interleaved(
            variants(unet, versions), lambda: [t.clone() for t in short], unet, 20 * rounds, "hooks"
        )

    bare = Summary.of(whole["no network"]).median
    print(f"a call without networks at {size}x{size}: {1e3 * bare:.0f} ms")
    figures: dict[str, object] = {"size": size, "bare_s": bare, "whole": whole, "hooks": hooks}
    for kind in KINDS:
        mine, theirs = (Summary.of(hooks[f"{v}: {kind}"]).median for v in ("now", "before"))
        print(f"{kind:20} hooks alone {1e3 * theirs:.2f} -> {1e3 * mine:.2f} ms per call")
        print(f"{'':20} more, of a bare call: hooks alone {more(hooks, kind, bare)}")
        print(f"{'':20} more, of a bare call: whole calls {more(whole, kind, bare)}")
    return figures


def main() -> None:
    """Print the figures and write JSON."""
    parser = cases.parser_of(__doc__, "against.json", rounds=11)
    parser.add_argument("folder", type=Path, help="contains the other version of hypernetworks/")
    options = parser.parse_args()
    with torch.inference_mode():
        sizes = [measure(options.folder, size, options.rounds) for size in options.sizes]
    cases.write_json({"sizes": sizes}, options)


if __name__ == "__main__":
    main()
