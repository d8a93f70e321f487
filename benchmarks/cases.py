"""What the benchmarks of a UNet compare: networks, the naive reference, and how to pair and
summarise times."""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

import hypernetworks as hn
from hypernetworks.patching import find_sites

SD15 = {"cross_attention_dim": 768, "attention_head_dim": 8, "sample_size": 64}
ALL_WIDTHS = (320, 640, 768, 1280)
Networks = list[tuple[hn.Hypernetwork, float]]
ActiveNetworks = Callable[[], AbstractContextManager[object]]


def full_size_unet(device: str, dtype: torch.dtype) -> UNet2DConditionModel:
    """SD1.5's, with random weights, built in memory."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**SD15).eval().requires_grad_(False)
    return unet.to(device, dtype)


def network(widths: tuple[int, ...], activation: str) -> hn.Hypernetwork:
    """A random network of ordinary strength, [1, 2, 1]."""
    made = hn.Hypernetwork.create(
        "random", hn.Structure((1, 2, 1), activation, activate_output=False), widths
    )
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.01)
    return made


def stacks() -> dict[str, Networks]:
    """The networks of the table."""
    linear = [network(ALL_WIDTHS, "linear") for _ in range(3)]
    return {
        "relu, 768 alone": [(network((768,), "relu"), 0.9)],
        "linear, all widths": [(linear[0], 0.9)],
        "linear x 3, all widths": [(net, 0.6) for net in linear],
        "relu, all widths": [(network(ALL_WIDTHS, "relu"), 0.9)],
        "gelu, all widths": [(network(ALL_WIDTHS, "gelu"), 0.9)],
    }


def ours(unet: torch.nn.Module, networks: Networks) -> ActiveNetworks:
    """As this project applies them."""
    return lambda: hn.apply(unet, networks)


def variants(unet: torch.nn.Module) -> dict[str, ActiveNetworks]:
    """No network, and each stack of :func:`stacks` in the naive way and in ours."""
    made: dict[str, ActiveNetworks] = {"no network": nullcontext}
    for name, stack in stacks().items():
        made[f"naive: {name}"], made[f"ours: {name}"] = naive(unet, stack), ours(unet, stack)
    return made


def naive(unet: torch.nn.Module, networks: Networks) -> ActiveNetworks:
    """Every layer computes its own MLPs in fp32, network after network, as AUTOMATIC1111's built-in
    does."""
    device = next(unet.parameters()).device
    mlps = [
        ({dim: [fp32_copy(mlp.linear, device) for mlp in p] for dim, p in n.pairs.items()}, m)
        for n, m in networks
    ]

    def hook(side: int) -> Callable[..., tuple[torch.Tensor, ...]]:
        def before(
            module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]
        ) -> tuple[torch.Tensor, ...]:
            context = inputs[0]
            for pairs, multiplier in mlps:
                if (pair := pairs.get(context.shape[-1])) is not None:
                    wide = context.float()
                    context = (wide + pair[side](wide) * multiplier).to(context.dtype)
            return (context, *inputs[1:])

        return before

    @contextmanager
    def acting() -> Iterator[None]:
        with ExitStack() as stack:
            for site in find_sites(unet):
                for side, projection in enumerate((site.to_k, site.to_v)):
                    stack.callback(projection.register_forward_pre_hook(hook(side)).remove)
            yield

    return acting


def fp32_copy(layers: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Layers of their own: the network stays where it is."""
    return copy.deepcopy(layers).to(device, torch.float32)


def interleaved(
    variants: Mapping[str, ActiveNetworks],
    fresh: Callable[[], object],
    call: Callable[[object], object],
    rounds: int,
    name: str,
) -> dict[str, list[float]]:
    """Seconds of each variant in each round: a random order in every round, fresh inputs for every
    call.

    Each variant is applied anew every time, and warmed up by one call outside the clock, so that
    the clock sees a step in the middle of a generation.
    """
    times: dict[str, list[float]] = {variant: [] for variant in variants}
    for number in range(rounds):
        for variant in random.sample(list(variants), len(variants)):
            with variants[variant]():
                call(fresh())
                inputs = fresh()
                wait()
                start = time.perf_counter()
                call(inputs)
                wait()
                times[variant].append(time.perf_counter() - start)
        print(f"\r{name}: {number + 1}/{rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return times


def wait() -> None:
    """Until the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@dataclass(frozen=True)
class Summary:
    """A median of paired numbers, with the 95 % interval that the order of the sorted ones
    gives.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Summary:
        """By the binomial distribution of how many lie below the true median; all of them for fewer
        than 6."""
        ordered, n = sorted(numbers), len(numbers)
        below, rank = 0.0, 0
        while rank < n // 2:
            below += math.comb(n, rank) / 2**n
            if below > 0.025:
                break
            rank += 1
        rank = max(rank - 1, 0)
        return cls(statistics.median(ordered), ordered[rank], ordered[n - 1 - rank])

    def __str__(self) -> str:
        return f"{self.median:7.3f}  ({self.low:.3f} to {self.high:.3f})"


def parser_of(description: str, output: str, rounds: int) -> argparse.ArgumentParser:
    """The options that all benchmarks of a UNet have."""
    parser = argparse.ArgumentParser(description=description.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512], help="pixels")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default=None, help="float16 on a GPU, float32 on a CPU")
    parser.add_argument("--output", type=Path, default=Path("build") / output)
    return parser


def dtype_of(options: argparse.Namespace) -> torch.dtype:
    """What the UNet computes in."""
    found: torch.dtype = getattr(
        torch, options.dtype or ("float32" if options.device == "cpu" else "float16")
    )
    return found


def write_json(figures: dict[str, object], options: argparse.Namespace) -> None:
    """The figures, and what they were measured on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    machine = {"torch": torch.__version__, "threads": torch.get_num_threads(), "gpu": gpu}
    facts = {**machine, "dtype": str(dtype_of(options)), **figures}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
