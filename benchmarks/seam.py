"""The attention seam alone: all ``to_k`` and ``to_v`` calls of one UNet call, replayed: ``python -m
benchmarks.seam``.

The module tree is that of full-size SD1.5, the shapes are recorded from a real call of it, and the
replay goes through the UNet's own start and end of a call. Every replay gets fresh tensors of fresh
content, so that nothing remembered from another call can look like speed.

*Added* is the time with networks less the time without. *The floor* is the arithmetic that can't be
avoided: bare products of matrices into tensors that are there already, the text's once per call; by
``torch.mm`` and, on a CPU, by oneDNN. What can be folded has no floor in self-attention.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch

from hypernetworks.patching import Site, find_sites

from . import cases
from .cases import Networks, Summary

Inputs = list[torch.Tensor]


def recorded(unet: torch.nn.Module, size: int) -> tuple[list[Site], list[int], Inputs]:
    """The attention modules in the order of their calls, which input each takes, and the inputs,
    the text only once."""
    weight = next(unet.parameters())
    sites, order, numbers, inputs = find_sites(unet), list[Site](), list[int](), Inputs()
    text = torch.randn(2, 77, 768, device=weight.device, dtype=weight.dtype)

    def note(site: Site) -> Callable[..., None]:
        def before(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
            order.append(site)
            known = next((i for i, seen in enumerate(inputs) if seen is arguments[0]), None)
            numbers.append(len(inputs) if known is None else known)
            if known is None:
                inputs.append(arguments[0])

        return before

    hooks = [site.to_k.register_forward_pre_hook(note(site)) for site in sites]
    latents = torch.randn(2, 4, size // 8, size // 8, device=weight.device, dtype=weight.dtype)
    unet(latents, 500, text)
    for hook in hooks:
        hook.remove()
    return order, numbers, inputs


@contextmanager
def replaying(unet: torch.nn.Module, order: list[Site], numbers: list[int]) -> Iterator[None]:
    """The UNet's forward runs the projections alone, for as long as this lasts."""

    def forward(inputs: Inputs) -> None:
        for site, number in zip(order, numbers, strict=True):
            site.to_k(inputs[number])
            site.to_v(inputs[number])

    unet.forward = forward
    try:
        yield
    finally:
        del unet.forward


def floor(
    networks: Networks, order: list[Site], numbers: list[int], inputs: Inputs, *, onednn: bool
) -> Callable[..., None]:
    """The products of [1, 2, 1] networks, and nothing else."""
    weight = inputs[0]
    pairs = {
        dim: [
            [p.detach().to(weight) for p in (mlp.linear[0].weight, mlp.linear[-1].weight)]
            for mlp in pair
        ]
        for net, _ in networks
        for dim, pair in net.pairs.items()
    }
    once = {number: site for site, number in zip(order, numbers, strict=True)}
    rooms = {
        number: [
            inputs[number].new_empty(inputs[number][..., 0].numel(), w.shape[0])
            for mlp in pairs[dim]
            for w in mlp
        ]
        for number in once
        if (dim := inputs[number].shape[-1]) in pairs
    }

    def product(x: torch.Tensor, w: torch.Tensor, room: torch.Tensor) -> torch.Tensor:
        if onednn:
            return torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")  # type: ignore[no-any-return]
        return torch.mm(x, w.T, out=room)

    def run(fresh: Inputs) -> None:
        for number, places in rooms.items():
            x = fresh[number].view(-1, fresh[number].shape[-1])
            for side, (first, last) in enumerate(pairs[x.shape[-1]]):
                product(product(x, first, places[2 * side]), last, places[2 * side + 1])

    return run


def measure(size: int, rounds: int, device: str, dtype: torch.dtype) -> dict[str, object]:
    """One size: times, and the rows of the table."""
    unet = cases.full_size_unet(device, dtype)
    order, numbers, inputs = recorded(unet, size)

    def fresh() -> Inputs:
        return [tensor * random.uniform(0.8, 1.2) for tensor in inputs]

    variants, relu = cases.variants(unet), cases.stacks()["relu, all widths"]
    bare = floor(relu, order, numbers, inputs, onednn=False)
    fused = floor(relu, order, numbers, inputs, onednn=True) if device == "cpu" else bare
    with replaying(unet, order, numbers):
        times = cases.interleaved(variants, fresh, unet, rounds, f"seam {size}")
        floors = cases.interleaved({"floor": nullcontext}, fresh, bare, rounds, "floor")
        floors |= cases.interleaved(
            {"floor, oneDNN": nullcontext}, fresh, fused, rounds, "floor, oneDNN"
        )
        short = [tensor[:1, :1] for tensor in inputs]
        overhead = cases.interleaved(
            {n: variants[n] for n in ("no network", "ours: linear, all widths")}, lambda: [t.clone() for t in short],
            unet, 40, "overhead",
        )  # fmt: skip
    return summarised(size, times, floors, overhead, calls=2 * len(order))


def summarised(
    size: int,
    times: dict[str, list[float]],
    floors: dict[str, list[float]],
    overhead: dict[str, list[float]],
    calls: int,
) -> dict[str, object]:
    """Ratios within each round, printed."""

    def added(variant: str) -> list[float]:
        return [t - none for t, none in zip(times[variant], times["no network"], strict=True)]

    rows: dict[str, dict[str, object]] = {}
    print(
        f"\n{size}x{size}: added to {1e3 * Summary.of(times['no network']).median:.0f} ms of "
        "projections"
    )
    for name in cases.stacks():
        mine, theirs = added(f"ours: {name}"), added(f"naive: {name}")
        rows[name] = {
            "ours_ms": 1e3 * Summary.of(mine).median,
            "naive_ms": 1e3 * Summary.of(theirs).median,
            "of_naive": vars(Summary.of([a / b for a, b in zip(mine, theirs, strict=True)])),
        }
        print(
            f"{name:24} naive {rows[name]['naive_ms']:7.1f} ms, ours "
            f"{rows[name]['ours_ms']:7.1f} ms, "
            f"ours/naive {Summary(**rows[name]['of_naive'])}"  # type: ignore[arg-type]
        )
    for name, seconds in floors.items():
        for activation in ("relu", "gelu"):
            ratio = Summary.of(
                [
                    a / b
                    for a, b in zip(added(f"ours: {activation}, all widths"), seconds, strict=True)
                ]
            )
            rows[f"{activation}, {name}"] = {
                "floor_ms": 1e3 * Summary.of(seconds).median,
                "of_floor": vars(ratio),
            }
            print(
                f"{name:24} {1e3 * Summary.of(seconds).median:7.1f} ms, ours/floor, {activation} "
                f"{ratio}"
            )
    pairs = zip(overhead["ours: linear, all widths"], overhead["no network"], strict=True)
    python = Summary.of([1e6 * (a - b) / calls for a, b in pairs])
    print(
        f"{'Python':24} {python.median:7.1f} us per projection, of a linear network on contexts "
        "of one token"
    )
    return {"size": size, "rows": rows, "python_us": vars(python), "seconds": {**times, **floors}}


def main() -> None:
    """Print a table and write JSON."""
    options = cases.parser_of(__doc__, "seam.json", rounds=11).parse_args()
    dtype = cases.dtype_of(options)
    with torch.inference_mode():
        sizes = [measure(size, options.rounds, options.device, dtype) for size in options.sizes]
    cases.write_json({"sizes": sizes}, options)


if __name__ == "__main__":
    main()
