"""What hypernetworks add to one UNet call of full-size SD1.5 (random weights): ``python benchmarks/unet_call.py``.

Interleaved and paired: every round times all variants in a random order, and ratios are taken within the round, because
the machines are shared and noisy. The naive reference does what AUTOMATIC1111 does: every network in every layer, fp32
MLP. "Exact" compares outputs before and after, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import hypernetworks as hn
from hypernetworks.patching import find_sites

SD15 = {"cross_attention_dim": 768, "attention_head_dim": 8, "sample_size": 64}
ALL_WIDTHS = (320, 640, 768, 1280)


def network(widths: tuple[int, ...], activation: str) -> hn.Hypernetwork:
    """A random network of ordinary strength."""
    made = hn.Hypernetwork.create("random", hn.Structure((1, 2, 1), activation, activate_output=False), widths)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.01)
    return made


@contextmanager
def naive(unet: torch.nn.Module, net: hn.Hypernetwork) -> Iterator[None]:
    """Every layer computes its own MLPs, as AUTOMATIC1111's built-in does."""

    def hook(side: int) -> Callable[..., tuple[torch.Tensor, ...] | None]:
        def before(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
            pair = net.pairs.get(inputs[0].shape[-1])
            if pair is None:
                return None
            context = inputs[0].float()
            return ((context + pair[side](context)).to(inputs[0].dtype), *inputs[1:])

        return before

    hooks = [p.register_forward_pre_hook(hook(i)) for s in find_sites(unet) for i, p in enumerate((s.to_k, s.to_v))]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


def main() -> None:
    """Print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=int, default=256, help="pixels")
    parser.add_argument("--output", type=Path, default=Path("build/unet_call.json"))
    options = parser.parse_args()
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**SD15).eval()
    nets = {
        "linear, all widths": network(ALL_WIDTHS, "linear"),
        "relu, 768 alone": network((768,), "relu"),
        "relu, all widths": network(ALL_WIDTHS, "relu"),
    }
    variants: dict[str, Callable[[], object]] = {"no network": nullcontext}
    for name, net in nets.items():
        variants[f"naive: {name}"] = lambda net=net: naive(unet, net)
        variants[f"ours: {name}"] = lambda net=net: hn.apply(unet, [(net, 1.0)])
    times: dict[str, list[float]] = {name: [] for name in variants}
    edge = options.size // 8
    with torch.inference_mode():
        still = (torch.randn(2, 4, edge, edge), 500, torch.randn(2, 77, 768))
        before = unet(*still).sample
        for round_number in range(options.rounds + 1):
            for name in random.sample(list(variants), len(variants)):
                inputs = (torch.randn(2, 4, edge, edge), 500, torch.randn(2, 77, 768))
                with variants[name]():
                    start = time.perf_counter()
                    unet(*inputs)
                    if round_number:  # the first round warms up
                        times[name].append(time.perf_counter() - start)
        exact = torch.equal(unet(*still).sample, before)
    report(times, exact, options)


def report(times: dict[str, list[float]], exact: bool, options: argparse.Namespace) -> None:
    """Medians of the paired ratios against no network."""
    rows = {}
    for name, seconds in times.items():
        ratios = sorted(s / b for s, b in zip(seconds, times["no network"], strict=True))
        median, low, high = statistics.median(ratios), ratios[0], ratios[-1]
        rows[name] = {"ratio": median, "low": low, "high": high}
        print(f"{name:28} {statistics.median(seconds):7.3f} s   x{median:.3f}  ({low:.3f} to {high:.3f})")
    print(f"before equals after, bit for bit: {exact}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    facts = {"size": options.size, "torch": torch.__version__, "threads": torch.get_num_threads(), "exact": exact}
    options.output.write_text(json.dumps({**facts, "rows": rows, "seconds": times}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
