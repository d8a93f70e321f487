"""What hypernetworks add to a whole UNet call of full-size SD1.5 (random weights): ``python -m
benchmarks.unet_call``.

Interleaved and paired: every round times all variants in a random order, and ratios are taken
within the round, because the machines are shared and noisy. The naive reference does what
AUTOMATIC1111 does: every network in every layer, fp32 MLP. Also what moving a slider costs, what
memory it takes, and whether the UNet afterwards is what it was, bit for bit.
"""

from __future__ import annotations

import gc
import time
from contextlib import nullcontext

import torch
from diffusers import UNet2DConditionModel

import hypernetworks as hn

from . import cases
from .cases import Networks, Summary

CLOSE = ("linear, all widths", "relu, 768 alone")
"""What should cost nothing: these are measured without the naive reference as well, in more rounds.
"""


CLOSE_OURS = tuple(f"ours: {name}" for name in CLOSE)


def whole_calls(
    unet: UNet2DConditionModel, size: int, rounds: int, close_rounds: int
) -> dict[str, object]:
    """Ratios to no network."""
    weight = next(unet.parameters())

    def fresh() -> tuple[torch.Tensor, torch.Tensor]:
        return (
            torch.randn(2, 4, size // 8, size // 8, device=weight.device, dtype=weight.dtype),
            torch.randn(2, 77, 768, device=weight.device, dtype=weight.dtype),
        )

    def call(inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
        unet(inputs[0], 500, inputs[1])

    everything = cases.variants(unet)
    close = {
        "no network": nullcontext,
        **{name: acting for name, acting in everything.items() if name in CLOSE_OURS},
    }
    rows: dict[str, object] = {}
    for title, variants, count in (
        ("with the naive reference", everything, rounds),
        ("close", close, close_rounds),
    ):
        times = cases.interleaved(variants, fresh, call, count, f"{size}, {title}") if count else {}
        print(f"\n{size}x{size}, {title}, {count} rounds, ratio to no network")
        for name, seconds in times.items():
            ratio = Summary.of([s / b for s, b in zip(seconds, times["no network"], strict=True)])
            print(f"{name:32} {Summary.of(seconds).median:8.4f} s  x{ratio}")
            rows[f"{title}: {name}"] = {**vars(ratio), "seconds": seconds}
    return {"size": size, "rows": rows}


def slider(unet: UNet2DConditionModel, size: int, rounds: int) -> dict[str, object]:
    """What the first call after a change of the multiplier takes beyond a later one, per
    network.
    """
    found: dict[str, object] = {}
    weight = next(unet.parameters())
    for count in (1, 2, 3):
        networks = cases.stacks()["linear x 3, all widths"][:count]
        extra = []
        for number in range(rounds):
            seconds = []
            with hn.apply(unet, [(net, 0.5 + number / 100) for net, _ in networks]) as handle:
                for _ in range(2):
                    inputs = torch.randn(
                        2, 4, size // 8, size // 8, device=weight.device, dtype=weight.dtype
                    )
                    text = torch.randn(2, 77, 768, device=weight.device, dtype=weight.dtype)
                    cases.wait()
                    start = time.perf_counter()
                    unet(inputs, 500, text)
                    cases.wait()
                    seconds.append(time.perf_counter() - start)
                assert "folded" in handle.paths.values()
            extra.append((seconds[0] - seconds[1]) / count)
        first, later = extra[0], Summary.of(extra[1:])
        kept = sum(net.prepared_bytes for net, _ in networks) / 2**20
        found[f"{count} networks"] = {"first_s": first, "changed_s": vars(later), "kept_mib": kept}
        print(
            f"slider, {count} linear: first fold {first:.3f} s, changed {later} s per network, "
            f"{kept:.0f} MiB kept"
        )
    return found


def memory(unet: UNet2DConditionModel, size: int) -> dict[str, object]:
    """Tensors before the first tag, with tags, and after the last one when what was made ready is
    released."""
    weight, networks = next(unet.parameters()), cases.stacks()
    tags: list[tuple[str, Networks]] = [
        ("before", []),
        *((n, networks[n]) for n in CLOSE),
        ("after", []),
    ]
    found: dict[str, object] = {}
    for name, stack in tags:
        with hn.apply(unet, stack):
            unet(
                torch.randn(2, 4, size // 8, size // 8).to(weight),
                500,
                torch.randn(2, 77, 768).to(weight),
            )
            found[name] = _tensors()
        for network, _ in stack:
            network.release()
        print(f"memory, {name:20} {found[name]}")
    return found


def _tensors() -> dict[str, float]:
    """How many there are, and the bytes of their storages."""
    gc.collect()
    alive = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in alive}
    return {"tensors": len(alive), "mib": sum(storages.values()) / 2**20}


def main() -> None:
    """Print tables and write JSON."""
    parser = cases.parser_of(__doc__, "unet_call.json", rounds=7)
    parser.add_argument("--close-rounds", type=int, default=25)
    options = parser.parse_args()
    unet = cases.full_size_unet(options.device, cases.dtype_of(options))
    with torch.inference_mode():
        still = (
            torch.randn(2, 4, 16, 16).to(unet.conv_in.weight),
            500,
            torch.randn(2, 77, 768).to(unet.conv_in.weight),
        )
        before = unet(*still).sample
        sizes = [
            whole_calls(unet, size, options.rounds, options.close_rounds) for size in options.sizes
        ]
        facts = {
            "sizes": sizes,
            "slider": slider(unet, 256, max(options.rounds, 3)), "memory": memory(unet, 256),
            "exact": torch.equal(unet(*still).sample, before),
        }  # fmt: skip
    print(f"before equals after, bit for bit: {facts['exact']}")
    cases.write_json(facts, options)


if __name__ == "__main__":
    main()
