"""Thousands of generations in one process: ``python -m tests.hardening.generations --runs 2000
--seed 1 --out FOLDER``.

Random tags, multipliers, schedules, batches and sizes, half of them as the studio makes pictures
and half as a webui does, while files are added, removed, replaced and broken, jobs interrupted or
ended by errors, and the page reloaded. Measured all the while: hooks, tensors, open files, threads,
memory, temporary files. Every so often an earlier job is made again, with the files of then, and
must be the same to the bit. Writes ``generations.csv`` and a plot ``generations.png``; ends with
code 1 when a promise of docs/SECURITY.md was broken.
"""

from __future__ import annotations

import argparse
import csv
import gc
import hashlib
import os
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field, fields, replace
from io import StringIO
from pathlib import Path
from random import Random

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]
os.environ["HF_HUB_OFFLINE"] = "1"

import torch  # noqa: E402
from fake_webui import installed  # noqa: E402
from hardening.webui_jobs import ERRORS, WebuiWithUNet, forget, left_on  # noqa: E402
from reference import Recipe  # noqa: E402
from unit.files.containers import save_legacy, save_zip  # noqa: E402

import hypernetworks as hn  # noqa: E402
from hypernetworks.hosts.diffusers import Generation, Painter, save_png  # noqa: E402
from hypernetworks.hosts.diffusers.samplers import SAMPLERS, build_sampler  # noqa: E402
from hypernetworks.hosts.webui import folders as webui_folders  # noqa: E402

WIDTHS = (96, 160, 192)
NAMES = ("ash", "bay", "cedar", "dogwood", "elm", "fir", "gum", "hazel")
TAILS = (
    *(
        "1",
        "0.5",
        "-0.7",
        "0",
        "2.5",
        "0@0,1@1",
        "1@0,0@1",
        "0.2@0,0.9@0.5,0.1@1",
        "0@1,1@2",
        "1:start=0.5",
    ),
    *(
        "0.8:stop=0.4",
        "0.6:attn=self",
        "0.6:attn=cross",
        "1:k=0.5:v=-1",
        "1:lbw=NONE",
        "0,5",
        "x",
        "1:hr=0.2",
        "",
    ),
)
CACHE = 16 << 20
"""Of the libraries: a handful of networks with all that is made ready from them."""
KEPT = 500
"""Tensors by which the most of two quarters may differ: it depends on which networks are loaded.
One for every second
job of a long run would be more."""
GROWTH = 48 << 20
"""Bytes by which resident memory may grow from the second quarter of a run to its last: the
allocator's own."""


class DeliberateError(Exception):
    """An error of ours."""


@dataclass(frozen=True)
class Job:
    """One job, and a folder with every file that its tags may name, as they were."""

    host: str
    prompts: tuple[str, ...]
    steps: int
    size: int
    seed: int
    sampler: str | None
    files: Path | None = None


@dataclass
class Sample:
    """What was measured after a job."""

    run: int
    seconds: float
    left: int
    tensors: int
    descriptors: int
    threads: int
    resident: int
    temporary: int
    loaded: int


@dataclass
class Report:
    """What a run has seen.

    Attributes:
        broken: promises that were.
        repeated: jobs that were made again.
        counts: of what happened.
    """

    samples: list[Sample] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    repeated: int = 0
    counts: Counter[str] = field(default_factory=Counter)


class Shelf:
    """A folder of networks where files come and go."""

    def __init__(self, folder: Path, chance: Random) -> None:
        self.folder, self._chance, self._seed = folder, chance, 0
        folder.mkdir(parents=True, exist_ok=True)
        for name in NAMES[:5]:
            self._write(name)

    def disturb(self) -> str:
        """Change something; says what."""
        name = self._chance.choice(NAMES)
        there = [path for path in sorted(self.folder.iterdir()) if path.stem == name]
        deed = self._chance.choice(("write", "write", "write", "remove", "break", "empty"))
        if deed == "write" or not there:
            for path in there:
                path.unlink()
            self._write(name)
            return "file written"
        if deed == "remove":
            there[0].unlink()
            return "file removed"
        content = there[0].read_bytes()
        there[0].write_bytes(
            b"" if deed == "empty" else content[: self._chance.randrange(len(content) or 1)]
        )
        return "file broken"

    def keep(self, folder: Path) -> Path:
        """Copy all files into a new folder: in memory, they would hide what is measured."""
        return shutil.copytree(self.folder, folder)

    def restore(self, kept: Path) -> None:
        """Have the files that were kept, and no others."""
        for path in self.folder.iterdir():
            path.unlink()
        for path in kept.iterdir():
            shutil.copyfile(path, self.folder / path.name)

    def _write(self, name: str) -> None:
        self._seed += 1
        activation = self._chance.choice((None, None, None, "relu", "swish", "mish"))
        widths = self._chance.choice((WIDTHS, WIDTHS, (96, 192), (768,)))
        content = Recipe(
            widths, (1, self._chance.choice((0.25, 1)), 1), activation,
            activate_output=False, layer_norm=self._chance.random() < 0.2, seed=self._seed,
            dtype=self._chance.choice((torch.float32, torch.float16)),
        ).content()  # fmt: skip
        path = (save_zip if self._chance.random() < 0.7 else save_legacy)(
            content, self.folder / f"{name}.pt"
        )
        if self._chance.random() < 0.5:
            hn.write(hn.read(path), path.with_suffix(".safetensors"))
            path.unlink()


class Runner:
    """Makes pictures in both ways on one model, and looks at what stays behind."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = Random(seed)
        self.shelf = Shelf(folder / "networks", self.chance)
        self.painter = Painter(None, hn.Library([self.shelf.folder], cache_bytes=CACHE))
        self.unet: torch.nn.Module = self.painter.pipeline.unet
        self.pictures = folder / "picture.png"
        self.report = Report()
        self._folder, self._kept = folder, 0

    @contextmanager
    def opened(self, folder: Path) -> Iterator[None]:
        """With a webui around the same model, whose folder is the same."""
        with installed(folder / "webui") as webui:
            webui.shared.cmd_opts.hypernetwork_dir = str(self.shelf.folder)
            webui.shared.opts.data["hypernetworks_cache_mb"] = CACHE >> 20
            own = self.painter.pipeline.scheduler
            self.webui = WebuiWithUNet(
                webui, self.unet, self._encode, lambda: build_sampler("DDIM", own)
            )
            try:
                yield
            finally:
                forget()
                webui_folders.library().look_in(())

    def _encode(self, prompts: list[str], negative: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        pipeline = self.painter.pipeline
        found: tuple[torch.Tensor, torch.Tensor] = pipeline.encode_prompt(
            prompts, "cpu", 1, True, negative
        )
        return found

    def drawn(self) -> Job:
        """A random job."""
        host = self.chance.choice(("studio", "webui"))
        batch = self.chance.choice((1, 1, 1, 2, 3))
        sampler = self.chance.choice((None, *SAMPLERS)) if host == "studio" else None
        prompts = tuple(self._prompt() for _ in range(batch))
        same = self.chance.random() < 0.4
        return Job(
            host,
            prompts[:1] * batch if same or host == "studio" else prompts,
            4 if sampler == "PNDM" else self.chance.randint(2, 4),
            self.chance.choice((32, 32, 48)),
            self.chance.randrange(1000),
            sampler,
        )

    def _prompt(self) -> str:
        words = [self.chance.choice(("a cat", "a red house", "the sea", "a tree at night"))]
        for _ in range(self.chance.choice((0, 1, 1, 2, 3))):
            name = self.chance.choice((*NAMES, *NAMES, "nobody"))
            words.append(f"<hypernet:{name}:{self.chance.choice(TAILS)}>")
        return " ".join(words)

    def made(self, job: Job, fault: str = "") -> str:
        """Make it; the hash of its numbers, or ``""`` where it was ended on the way."""
        self.painter.library.scan()
        webui_folders.library().scan()
        return self._by_webui(job, fault) if job.host == "webui" else self._by_studio(job, fault)

    def _by_studio(self, job: Job, fault: str) -> str:
        cancelled = Generation(
            job.prompts[0],
            "",
            job.steps,
            3.0,
            job.seed,
            len(job.prompts),
            job.size,
            job.size,
            job.sampler,
        )
        at = self.chance.randrange(job.steps) if fault else -1

        def on_step(done: int, _total: int) -> bool:
            if fault == "error" and done > at:
                raise self.chance.choice(ERRORS)("deliberate")
            return not (fault and done > at)

        result = self.painter.generate(cancelled, on_step)
        self.report.counts["messages"] += len(result.messages)
        save_png(result.pictures[0], self.pictures)
        digest = hashlib.sha256(b"".join(picture.image.tobytes() for picture in result.pictures))
        return "" if fault else digest.hexdigest()

    def _by_webui(self, job: Job, fault: str) -> str:
        at = self.chance.randrange(job.steps) if fault else -1
        state = self.webui.webui.shared.state

        def during(step: int) -> None:
            if step == at and fault == "error":
                raise self.chance.choice(ERRORS)("deliberate")
            if step == at and fault == "reload":
                self.webui.reload()
            state.interrupted = step == at and fault == "interrupted"

        try:
            done = self.webui.job(
                job.prompts, steps=job.steps, seed=job.seed, size=job.size // 8, during=during
            )
        finally:
            state.interrupted = False
        self.report.counts["messages"] += len(done.told)
        digest = hashlib.sha256(done.latents.numpy().tobytes()).hexdigest()
        return "" if fault in ("error", "interrupted") else digest

    def run_once(self) -> None:
        """One job in a world that changes."""
        if self.chance.random() < 0.3:
            self.report.counts[self.shelf.disturb()] += 1
        job = self.drawn()
        fault = self.chance.choices(("", "interrupted", "error", "reload"), (85, 6, 6, 3))[0]
        try:
            self.made(job, fault)
        except hn.HypernetworkError as error:
            if fault != "error" or "not enough memory" not in str(error):
                self.report.broken.append(f"{job.prompts}: {type(error).__name__}: {error}")
        except ERRORS as error:
            if fault != "error" or "deliberate" not in str(error):
                self.report.broken.append(f"{job.prompts}: {type(error).__name__}: {error}")
                traceback.print_exc()
        self.report.counts[f"{job.host}{f', {fault}' if fault else ''}"] += 1
        if left := left_on(self.unet):
            self.report.broken.append(f"{job.prompts} ({fault or 'no fault'}): left {left[:3]}")

    def first_made(self) -> tuple[Job, str]:
        """A job to be made again later, with the files of now."""
        self._kept += 1
        job = replace(self.drawn(), files=self.shelf.keep(self._folder / f"kept {self._kept}"))
        return job, self.made(job)

    def again(self, job: Job, first: str) -> None:
        """Make it again with the files of then; the files of now come back."""
        assert job.files is not None
        now = self.shelf.keep(self._folder / "now")
        self.shelf.restore(job.files)
        if self.made(job) != first:
            self.report.broken.append(f"{job.prompts} is another picture now")
        self.report.repeated += 1
        self.shelf.restore(now)
        shutil.rmtree(now)

    def measure(self, run: int, seconds: float) -> Sample:
        """What there is now."""
        gc.collect()
        tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
        strays = [*Path(tempfile.gettempdir()).iterdir()]
        strays += [path for path in self.shelf.folder.iterdir() if path.suffix == ".tmp"]
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return Sample(
            run, seconds, len(left_on(self.unet)), tensors, len(os.listdir("/proc/self/fd")),
            threading.active_count(), pages * os.sysconf("SC_PAGE_SIZE"), len(strays),
            self.painter.library.loaded_bytes + webui_folders.library().loaded_bytes,
        )  # fmt: skip


def run(
    runs: int, seed: int, folder: Path, *, every: int = 100, measured: int = 10, talk: bool = False
) -> Report:
    """So many generations.

    Args:
        folder: for files that come and go; an empty one.
        every: jobs between two that are made again.
        measured: jobs between two measurements.
        talk: print a line now and then.
    """
    (folder / "temporary").mkdir(parents=True)
    before, tempfile.tempdir = tempfile.tempdir, str(folder / "temporary")
    runner, kept = Runner(folder, seed), list[tuple[Job, str]]()
    began = time.monotonic()
    try:
        with runner.opened(folder):
            for number in range(runs):
                with redirect_stderr(StringIO()):  # our messages, once for each job
                    if number % every == 0:
                        kept.append(runner.first_made())
                    runner.run_once()
                    if number % every == every - 1:
                        runner.again(*kept[-1])
                        runner.again(*runner.chance.choice(kept))
                if number % measured == measured - 1:
                    runner.report.samples.append(
                        runner.measure(number + 1, time.monotonic() - began)
                    )
                    if talk and number % (10 * measured) == 10 * measured - 1:
                        print(runner.report.samples[-1], runner.report.broken[:3], flush=True)
            with redirect_stderr(StringIO()):
                for job, first in kept:
                    runner.again(job, first)
    finally:
        tempfile.tempdir = before
    runner.report.broken += leaks(runner.report.samples)
    return runner.report


def leaks(samples: Sequence[Sample]) -> list[str]:
    """What grew from the second quarter of a run to the last one, by the largest of each."""
    quarter = len(samples) // 4
    if quarter < 2:
        return []
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    allowed = {
        "left": 0,
        "tensors": KEPT,
        "descriptors": 0,
        "threads": 0,
        "resident": GROWTH,
        "temporary": 0,
    }
    grown = {
        name: max(getattr(s, name) for s in late) - max(getattr(s, name) for s in early)
        for name in allowed
    }
    found = [f"{name} grew by {by}" for name, by in grown.items() if by > allowed[name]]
    return found + [f"something was left on the UNet after run {s.run}" for s in samples if s.left]


def write_csv(samples: Sequence[Sample], path: Path) -> None:
    """One line for each measurement."""
    with path.open("w", newline="", encoding="utf8") as file:
        writer = csv.writer(file)
        writer.writerow([column.name for column in fields(Sample)])
        writer.writerows([list(vars(sample).values()) for sample in samples])


def plot(samples: Sequence[Sample], path: Path) -> None:
    """A strip for each thing that was measured, over the runs."""
    from PIL import Image, ImageDraw

    names = [column.name for column in fields(Sample) if column.name not in ("run", "seconds")]
    left, width, height = 150, 900, 110
    image = Image.new("RGB", (left + width + 20, height * len(names) + 30), "white")
    draw = ImageDraw.Draw(image)
    last = samples[-1].run
    for row, name in enumerate(names):
        values = [
            getattr(sample, name) / (1 << 20 if name in ("resident", "loaded") else 1)
            for sample in samples
        ]
        top, bottom, high = row * height + 14, row * height + height - 10, max(*values, 1) * 1.05
        draw.rectangle((left, top, left + width, bottom), outline="#bbbbbb")
        unit = " MiB" if name in ("resident", "loaded") else ""
        draw.text((8, top), name, fill="black")
        draw.text((8, top + 18), f"{min(values):.0f} to {max(values):.0f}{unit}", fill="#555555")
        draw.text((8, top + 36), f"at the end {values[-1]:.0f}{unit}", fill="#555555")
        points = [
            (left + width * s.run / last, bottom - (bottom - top) * v / high)
            for s, v in zip(samples, values, strict=True)
        ]
        draw.line(points, fill="#4f46e5", width=2)
    draw.text(
        (left, height * len(names) + 6),
        f"generations: 0 to {last}; every strip begins at 0",
        fill="#555555",
    )
    image.save(path)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("generations"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        report = run(options.runs, options.seed, Path(folder), talk=True)
    write_csv(report.samples, options.out / "generations.csv")
    plot(report.samples, options.out / "generations.png")
    print(dict(sorted(report.counts.items())))
    print(
        f"{options.runs} generations, {report.repeated} made again bit for bit, broken: "
        f"{report.broken or 'none'}"
    )
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())
