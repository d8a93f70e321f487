"""Is the default as good as what a sweep finds? ``python -m benchmarks.sweep [--build DIR]``.

Successive halving on the miniature, at an equal number of samples: not quite at equal time, as
batch 2 takes about 1.3 times the processor time per image that batch 4 takes.

Round 1 tries every setting of :data:`SETTINGS` on one cell (a style, a number of images, a seed);
round 2 the best of them, and the default, on all styles; then come :data:`VARIANTS` on the first
cell; round 3 is the best of all of these, and the default, on all 18 cells (three styles x two
numbers of images x three seeds). What is compared is the loss of the *best file* (lowest validation
loss of the run's own few images) on 16 images of subjects that no run has seen.

Every finished run is a line of ``sweep.jsonl`` in the build folder; started again, the sweep goes
on with what is missing. ``--table`` only prints what is there, as docs/training.md has it.

``--since`` does other runs: those of :data:`SINCE`, which was tried later, on the cells of 24
images.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

import hypernetworks as hn
from hypernetworks.engine.initialising import create_network
from hypernetworks.hosts.diffusers.training.job import on_miniature
from hypernetworks.training import Examples, Run, TrainingSettings

from .gains import Gained, Gains
from .styled import Cell, Styled

STYLES, SIZES, SEEDS = ("night", "sepia", "ink"), (24, 48), (0, 1, 2)
FIRST = Cell("night", 24, 0)
EPOCHS = 30
"""How often each image is learned from in a run of the sweep: half as often as by default."""
MEASURED = 10
"""Validation losses per run."""


@dataclass(frozen=True)
class Setting:
    """What one run of the sweep differs in from the others.

    Attributes:
        name: for the table; runs are found again by it.
        settings: fields of :class:`~hypernetworks.training.TrainingSettings`.
        initialisation, zero_last: of the network.
        layers, activation, layer_norm: likewise.
        gains: what has gains that are learned with it, see :class:`~.gains.Gains`; "" for none.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    initialisation: str = "Normal"
    zero_last: bool = True
    layers: tuple[float, ...] = (1, 2, 1)
    activation: str = "relu"
    layer_norm: bool = False
    gains: str = ""


def _adamw(batch: int, rate: str, name: str = "", **others: Any) -> Setting:
    wanted = {"batch": batch, "rate": rate}
    for key in [key for key in others if key not in Setting.__dataclass_fields__]:
        wanted[key] = others.pop(key)
    return Setting(f"AdamW {rate}, batch {batch}" + (f", {name}" if name else ""), wanted, **others)


def _schedule_free(batch: int, rate: str, name: str = "", optimiser: str = "") -> Setting:
    wanted = {"batch": batch, "rate": rate, "optimiser": optimiser or "ScheduleFreeAdamW"}
    title = f"schedule-free AdamW {rate}, batch {batch}" + (f", {name}" if name else "")
    return Setting(title, wanted, initialisation=name or "Normal")


BASE = _schedule_free(2, "3e-3", "KaimingUniform")
"""The default without gains."""
DEFAULT = replace(BASE, name=f"{BASE.name}, gains", settings=BASE.settings | {"gains": "on"})
"""What ``train`` does on the miniature without options; a test holds it in step."""
SETTINGS = (
    _adamw(16, "2e-3"),
    _adamw(4, "2e-3"),
    _adamw(4, "5e-3"),
    _adamw(16, "5e-3"),
    _adamw(4, "1e-3"),
    _adamw(4, "2e-3", "KaimingUniform", initialisation="KaimingUniform"),
    _adamw(4, "2e-3", "XavierUniform", initialisation="XavierUniform"),
    _adamw(4, "2e-3", "random last layer", zero_last=False),
    _adamw(4, "1e-2"),
    Setting("Prodigy, batch 4", {"batch": 4, "rate": "1", "optimiser": "prodigyopt.Prodigy"}),
    _schedule_free(4, "5e-3", optimiser="schedulefree.AdamWScheduleFree"),
    _adamw(4, "2e-3", "style-friendly noise levels", noise_levels="style"),
    _adamw(4, "2e-3", "KaimingUniform, EMA 0.98", initialisation="KaimingUniform", ema=0.98),
    BASE,
    DEFAULT,
)
"""Round 1, in this order."""
VARIANTS = (
    _adamw(4, "2e-3", "Huber loss", loss="huber"),
    _adamw(4, "2e-3", "debiased", debiased=True),
    _adamw(4, "2e-3", "Min-SNR 5", min_snr=5.0),
    _adamw(4, "2e-3", "warm-up 10", warm_up=10),
    _adamw(2, "1e-3"),
    _adamw(2, "2e-3", "KaimingUniform", initialisation="KaimingUniform"),
    _schedule_free(4, "5e-3", "KaimingUniform"),
    _adamw(4, "2e-3", "swish", activation="swish"),
    _adamw(4, "2e-3", "linear", activation="linear"),
    _adamw(4, "2e-3", "no caption dropout", caption_dropout=0.0),
)
"""Tried on the first cell after round 2, where there is time."""


def _since(name: str, **others: Any) -> Setting:
    own = {key: others.pop(key) for key in [*others] if key in Setting.__dataclass_fields__}
    return replace(BASE, name=f"{BASE.name}, {name}", settings=BASE.settings | others, **own)


SINCE = (
    _since("gains per width", gains="width"),
    _since("gains per block", gains="block"),
    _since("gains per projection", gains="projection"),
    _since("Huber loss", loss="huber"),
    _since("random last layer", zero_last=False),
    _since("swish", activation="swish"),
    _since("layer norm", layer_norm=True),
    _since("betas 0.95 and 0.999", options={"betas": (0.95, 0.999)}),
    _schedule_free(1, "2e-3", "KaimingUniform"),
    _schedule_free(2, "4e-3", "KaimingUniform"),
)
"""Tried later, against :data:`BASE`."""
KEPT = (1, 1)
"""Settings besides the default that go on to rounds 2 and 3."""


def settings_of(setting: Setting, cell: Cell, images: int) -> TrainingSettings:
    """The run's settings: the miniature's defaults, at the sweep's number of samples."""
    usual = replace(TrainingSettings(), seed=cell.seed, precision="fp32", save_every=0)
    wanted = replace(on_miniature(usual), optimiser=usual.optimiser, gains="off")
    wanted = replace(wanted, **setting.settings)
    steps = max(1, round(EPOCHS * images / wanted.samples_per_step))
    return replace(wanted, steps=steps, watch_every=max(1, steps // MEASURED))


def trained(styled: Styled, setting: Setting, cell: Cell) -> dict[str, Any]:
    """One run: the loss of its best file on unseen subjects, and what it took."""
    learned, kept = styled.subjects(cell)
    settings = settings_of(setting, cell, len(learned))
    structure = hn.Structure(
        setting.layers, setting.activation, activate_output=False, layer_norm=setting.layer_norm
    )
    network = create_network(
        "sweep",
        structure,
        styled.model.widths(),
        initialisation=setting.initialisation,
        zero_last=setting.zero_last,
        seed=cell.seed,
    )
    gains = Gains(styled.pipeline.unet, setting.gains) if setting.gains else None
    network = Gained.of(network, gains) if gains is not None else network
    examples = Examples(
        styled.examples(learned, cell.style),
        styled.contexts,
        batch=settings.samples_per_step,
        caption_dropout=settings.caption_dropout,
        seed=cell.seed,
    )
    own, test = (
        styled.validation(kept, cell.style, cell.seed),
        styled.validation(styled.tested(), cell.style),
    )
    network.train()
    began, processor = time.perf_counter(), time.process_time()
    left_out = None
    with styled.ready() as model, hn.apply(model.unet, [(network, 1.0)]):
        with _acting(gains):
            run = Run(
                network,
                model.predict,
                examples,
                model.schedule,
                settings,
                validation=own,
                on_warning=lambda _: None,
            )
            before = test.loss(model.predict, model.schedule, "cpu")
            best = _best_weights(run)
            with torch.no_grad():
                for parameter, value in zip(network.parameters(), best, strict=True):
                    parameter.copy_(value)
            after = test.loss(model.predict, model.schedule, "cpu")
        if gains is not None:
            left_out = test.loss(model.predict, model.schedule, "cpu")

    return {
        "setting": setting.name,
        "cell": [cell.style, cell.images, cell.seed],
        "before": before,
        "test": after,
        "without_gains": left_out,
        "gains": gains.values.tolist() if gains is not None else None,
        "own": run.best.loss,
        "best_step": run.best.step,
        "steps": settings.steps,
        "batch": settings.batch,
        "seconds": time.perf_counter() - began,
        "processor_seconds": time.process_time() - processor,
    }


def _acting(gains: Gains | None) -> AbstractContextManager[None]:
    return nullcontext() if gains is None else gains.acting()


def _best_weights(run: Run) -> list[torch.Tensor]:
    """What ``NAME-best`` would hold; the run is finished."""
    best = [p.detach().clone() for p in run.network.parameters()]
    while not run.is_finished:
        done = run.advance()
        if done.validation is not None and run.best.step == done.step:
            with run.at_rest():
                best = [p.detach().clone() for p in run.network.parameters()]
    run.finish()
    return best


def planned(results: Sequence[dict[str, Any]]) -> Iterator[tuple[Setting, Cell]]:
    """The next runs, by what is known; those that are done are among them."""
    for setting in SETTINGS:
        yield setting, FIRST

    second = [Cell(style, 24, 0) for style in STYLES]
    for cell in second:
        for setting in [DEFAULT, *_best(results, [FIRST], KEPT[0])]:
            yield setting, cell
    for setting in VARIANTS:
        yield setting, FIRST

    finalists = [DEFAULT, *_best(results, second, KEPT[1])]
    for seed, size, style in itertools.product(SEEDS, SIZES, STYLES):
        for setting in finalists:
            yield setting, Cell(style, size, seed)


def planned_since(_: Sequence[dict[str, Any]]) -> Iterator[tuple[Setting, Cell]]:
    """The runs of ``--since``: all styles, then further seeds."""
    for seed, setting, style in itertools.product(SEEDS, (BASE, *SINCE), STYLES):
        yield setting, Cell(style, 24, seed)


def _best(results: Sequence[dict[str, Any]], cells: Sequence[Cell], count: int) -> list[Setting]:
    """The settings of the lowest loss over these cells, the default left out.

    The mean is geometric: a style whose losses are larger must not count for more.
    """
    wanted = [[c.style, c.images, c.seed] for c in cells]
    means = {
        setting.name: statistics.geometric_mean(found)
        for setting in (*SETTINGS, *VARIANTS)
        if len(
            found := [
                r["test"] for r in results if r["setting"] == setting.name and r["cell"] in wanted
            ]
        )
        == len(cells)
    }
    ranked = sorted((mean, name) for name, mean in means.items() if name != DEFAULT.name)
    by_name = {setting.name: setting for setting in (*SETTINGS, *VARIANTS)}
    return [by_name[name] for _, name in ranked[:count]]


def read_results(path: Path) -> list[dict[str, Any]]:
    """The finished runs."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def sweep(
    build: Path,
    limit: float,
    plan: Callable[[Sequence[dict[str, Any]]], Iterator[tuple[Setting, Cell]]] = planned,
) -> None:
    """Do what is missing of a plan, for at most ``limit`` seconds."""
    path, until = build / "sweep.jsonl", time.monotonic() + limit
    styled = Styled(build)
    while time.monotonic() < until:
        results = read_results(path)
        done = {(r["setting"], *r["cell"]) for r in results}
        missing = (
            (s, c) for s, c in plan(results) if (s.name, c.style, c.images, c.seed) not in done
        )
        if (following := next(missing, None)) is None:
            return
        result = trained(styled, *following)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
        print(json.dumps(result), flush=True)


def table(results: Sequence[dict[str, Any]]) -> str:
    """Losses of best files on unseen subjects as Markdown, each beside the default's in the same
    cells.
    """
    default = {tuple(r["cell"]): r["test"] for r in results if r["setting"] == DEFAULT.name}
    rows = []
    for setting in (*SETTINGS, *VARIANTS, *SINCE):
        pairs = [
            (r["test"], default[tuple(r["cell"])])
            for r in results
            if r["setting"] == setting.name and tuple(r["cell"]) in default
        ]
        if pairs:
            ratio = statistics.geometric_mean(loss / usual for loss, usual in pairs) - 1
            mean = statistics.mean(loss for loss, _ in pairs)
            row = f"| {setting.name} | {len(pairs)} | {mean:.4f} | {ratio:+.1%} |"
            rows.append((-len(pairs), ratio, row))
    head = ("| setting | cells | loss | against the default |", "|---|---|---|---|")
    return "\n".join([*head, *(row for *_, row in sorted(rows))])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, default=Path("build/sweep"))
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds")
    parser.add_argument("--since", action="store_true", help="what was tried later")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    options = parser.parse_args()
    options.build.mkdir(parents=True, exist_ok=True)
    if not options.table:
        sweep(options.build, options.limit, planned_since if options.since else planned)
    print(table(read_results(options.build / "sweep.jsonl")))


if __name__ == "__main__":
    main()
