"""Bad files by the thousand: ``python -m tests.hardening.fuzz --cases 20000 --seed 1``.

Draws files of all families, lets another process read them (:mod:`hardening.watched`), and holds
what it saw against what docs/SECURITY.md promises. Prints a table by family; ends with code 1 when
a promise was broken, and keeps those files.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from hardening import archives, damage, sharing  # noqa: E402
from hardening.healthy import KINDS, healthy  # noqa: E402

FAMILIES: dict[str, damage.Family] = {
    "truncated": damage.truncated,
    "flipped bits": damage.flipped,
    "wrong start": damage.wrong_start,
    "spliced": damage.spliced,
    "pickle bytes": damage.pickle_bytes,
    "pickle programs": damage.programs,
    "gadgets": damage.gadgets,
    "bombs": damage.bombs,
    "lying tensors": damage.lying_tensors,
    "safetensors headers": damage.safetensors_headers,
    "legacy parts": damage.legacy_parts,
    "archives": archives.archives,
    "zip bombs": archives.zip_bombs,
    "metadata": archives.metadata,
    "contents": archives.contents,
    "shared parts": sharing.shared_parts,
}
SIDE_CARS = "side-cars"
MOVING = "changed while read"
LIMIT_MS, LIMIT_KIB, HANGS = 1000.0, 64 << 10, 200.0


@dataclass
class Family:
    """The figures of a family."""

    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    agreements: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    largest: int = 0
    size: int = 0


@dataclass
class Report:
    """All figures, and the promises that were broken."""

    families: dict[str, Family] = field(default_factory=lambda: defaultdict(Family))
    broken: list[str] = field(default_factory=list)


class Reader:
    """The watched process; a new one when it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, path: Path, mode: str = "read", **more: object) -> dict[str, object]:
        """One reading.

        Raises:
            RuntimeError: the process died or hung.
        """
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        size = path.stat().st_size if path.exists() else 0
        process.stdin.write(
            json.dumps({"path": os.fsencode(path).hex(), "mode": mode, "size": size, **more}) + "\n"
        )
        process.stdin.flush()
        line = self._answer(process)
        if line:
            return dict(json.loads(line))
        self._process = None
        try:
            raise RuntimeError(f"the process ended with {process.wait(2)}")
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise RuntimeError(f"it hung for {HANGS:g} s") from None

    def _answer(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            return process.stdout.readline() if selector.select(HANGS) else ""

    @staticmethod
    def _start() -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path[:2]),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "hardening.watched"]
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=TESTS,
            env=environment,
        )

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()
            self._process = None


def run(cases: int, seed: int, folder: Path, only: str = "", timed: bool = True) -> Report:
    """Read ``cases`` files, all families in turn.

    Args:
        folder: bad files that broke a promise stay there; the others are made in its ``case``.
        only: one family.
        timed: hold the time against the limit, too.
    """
    report, reader, folder = Report(), Reader(), folder / "case"
    folder.mkdir()
    names = [only] if only else [*FAMILIES, SIDE_CARS, MOVING]
    try:
        warm_up(reader, folder)
        for number in range(cases):
            family = names[number % len(names)]
            drawn = Random(f"{seed} {family} {number}")
            _one(report, reader, family, number, drawn, folder, timed)
            if sys.stderr.isatty() and number % 100 == 0:
                print(
                    f"\r{number} of {cases}, {len(report.broken)} broken", end="", file=sys.stderr
                )
    finally:
        reader.close()
    return report


def warm_up(reader: Reader, folder: Path) -> None:
    """Let it read healthy files, so that whatever is imported or allocated once is there."""
    for kind in KINDS:
        path = folder / healthy(kind).name
        path.write_bytes(healthy(kind).content)
        for mode in ("read", "library", "cli", "side-car") if kind == "zip" else ("read",):
            reader.ask(path, mode, compare=True)
        path.unlink()
    reader.ask(folder, "ready")


def _one(
    report: Report,
    reader: Reader,
    family: str,
    number: int,
    drawn: Random,
    folder: Path,
    timed: bool,
) -> None:
    figures = report.families[family]
    figures.cases += 1
    draw = {MOVING: _moving_file, SIDE_CARS: side_cars}.get(family) or FAMILIES[family]
    name, content = draw(drawn)
    path = folder / name
    path.write_bytes(content)
    mode = (
        "side-car"
        if family == SIDE_CARS
        else "library"
        if number % 25 == 7
        else "cli"
        if number % 25 == 3
        else "read"
    )
    try:
        seen = (
            _ask_moving(reader, path, drawn)
            if family == MOVING
            else reader.ask(path, mode, compare=True)
        )
    except RuntimeError as error:
        found, seen = (
            [str(error)],
            {"outcome": "DIED", "agreement": "", "milliseconds": 0.0, "kibibytes": 0},
        )
    else:
        found = list(faults(seen, mode, len(content), timed))
    figures.outcomes[str(seen["outcome"])] += 1
    if seen["outcome"] == "read":
        figures.agreements[str(seen["agreement"])] += 1
    figures.slowest = max(figures.slowest, float(str(seen["milliseconds"])))
    figures.largest = max(figures.largest, int(str(seen["kibibytes"] or 0)) - len(content) // 1024)
    figures.size = max(figures.size, len(content))
    path.unlink(missing_ok=True)
    if left := [item.name for item in folder.iterdir()]:
        found.append(f"left {left}")
    for fault in found:
        report.broken.append(f"{family} {number}: {fault}"[:600])
        (folder.parent / f"{number}-{name}").write_bytes(content)


def faults(seen: dict[str, object], mode: str, size: int, timed: bool) -> Iterator[str]:
    """The promises that a reading broke."""
    message = str(seen["message"])
    if seen["foreign"]:
        yield f"{seen['outcome']} is none of our errors: {message}"
    elif seen["outcome"] != "read" and (
        len(message) < 20 or not message.isprintable() or len(message) > 3000
    ):
        yield f"the message says nothing or can't be shown: {message!r}"
    if seen["events"]:
        yield f"it did {seen['events']}"
    if seen["left"]:
        yield f"it left {seen['left']}"
    if timed and float(str(seen["milliseconds"])) > LIMIT_MS:
        yield f"it took {seen['milliseconds']} ms"
    if seen["kibibytes"] is not None and int(str(seen["kibibytes"])) > LIMIT_KIB + size // 1024:
        yield f"it took {seen['kibibytes']} KiB"
    agreement = str(seen["agreement"])
    if agreement.startswith("different") or (
        mode == "cli" and seen["outcome"] != "read" and agreement
    ):
        yield f"agreement: {agreement}"


WORDS = [
    "<a ",
    "<!--",
    "<a href='",
    "<![",
    "</",
    "&#",
    "&a",
    "<script>",
    "\u202e",
    "\x1b[31m",
    "\ud83d",
    "a",
    "<p>b</p>",
]
KEYS = [
    "activation text",
    "preferred weight",
    "notes",
    "sd version",
    "description",
    "modelVersions",
    "trainedWords",
]
KEYS += ["model", "name", "baseModel", "x"]


def side_cars(drawn: Random) -> damage.Drawn:
    """What stands beside a network: JSON of any shape, text that goes on and on, pictures that are
    none."""
    name = drawn.choice(
        [
            "net.json",
            "net.json",
            "net.civitai.info",
            "net.txt",
            "net.preview.png",
            "net.description.txt",
        ]
    )
    how, many = drawn.randrange(8), damage.rarely_many(drawn, [10, 1000], [100_000, 1_000_000])
    long = drawn.choice(WORDS) * many
    if how == 0:
        content = long.encode("utf-8", "surrogatepass")
    elif how == 1:
        content = drawn.randbytes(min(many, 10_000))
    elif how == 2:
        content = (drawn.choice(["[", '{"a":', '{"modelVersions":[']) * many).encode()
    elif how == 3:
        content = (
            '{"preferred weight": ' + drawn.choice(["9", "-", "1e", "0."]) * many + "}"
        ).encode()
    elif how == 4:
        filling = drawn.choice(["[],", "{},", '"",', "1,", '"\\ud83d",'])
        content = ('{"notes": [' + filling * min(many, (6 << 20) // len(filling)) + "0]}").encode()
    else:
        values = [
            None,
            True,
            5,
            1e999,
            "NaN",
            long,
            [],
            {},
            [long, 5],
            {"name": long},
            [{"trainedWords": [long, 5, None]}],
        ]
        content = json.dumps({key: drawn.choice(values) for key in drawn.sample(KEYS, 4)}).encode()
    return name, content


def _moving_file(drawn: Random) -> tuple[str, bytes]:
    """A healthy file of some megabytes, so that there is time to change it."""
    if not _LARGE:
        from reference import Recipe
        from unit.files.containers import save_legacy, save_safetensors, save_zip

        for name, save in (
            ("net.pt", save_zip),
            ("net.ckpt", save_legacy),
            ("net.safetensors", save_safetensors),
        ):
            with TemporaryDirectory() as folder:
                path = save(Recipe((320,)).content(), Path(folder) / name)
                _LARGE[name] = path.read_bytes()
    return drawn.choice(list(_LARGE.items()))


_LARGE: dict[str, bytes] = {}


def _ask_moving(reader: Reader, path: Path, drawn: Random) -> dict[str, object]:
    """Let it read while the file is cut, overwritten, removed or replaced; then again cut what it
    has read."""
    how, size, wait = drawn.randrange(5), path.stat().st_size, drawn.random() * 0.004
    other = path.with_name("other.tmp")

    def change() -> None:
        time.sleep(wait)
        if how == 0:
            os.truncate(path, drawn.randrange(size))
        elif how == 1:
            os.truncate(path, 0)
            path.write_bytes(path.read_bytes() + bytes(size))
        elif how == 2:
            path.unlink()
        elif how == 3:
            other.write_bytes(bytes(100))
            other.replace(path)
        else:
            with path.open("r+b") as file:
                file.seek(drawn.randrange(size))
                file.write(drawn.randbytes(4096))

    changing = threading.Thread(target=change)
    changing.start()
    try:
        seen = reader.ask(path, digest=True)
    finally:
        changing.join()
    if seen["outcome"] == "read":
        if path.exists():
            os.truncate(path, drawn.choice([0, 100, size // 2]))
        later = reader.ask(path, "touch")
        seen["agreement"] = (
            "same" if later["digest"] == seen["digest"] else "different: what was read has changed"
        )
    return seen


def table(report: Report) -> str:
    """The figures by family, as Markdown."""
    lines = [
        "| family | cases | read | refused as | slowest, ms | most memory, MiB |",
        "|---|---|---|---|---|---|",
    ]
    for name, family in report.families.items():
        errors = ", ".join(f"{k} {n}" for k, n in family.outcomes.most_common() if k != "read")
        memory = f"{max(0, family.largest) / 1024:.1f}"
        lines.append(
            f"| {name} | {family.cases} | {family.outcomes['read']} | {errors} | "
            f"{family.slowest:.0f} | {memory} |"
        )
    agreements = sum((family.agreements for family in report.families.values()), Counter[str]())
    found = ", ".join(
        f"{words or 'not compared'} {count}" for words, count in agreements.most_common()
    )
    return "\n".join(
        [*lines, "", f"What was read, compared with torch's and safetensors' own reading: {found}"]
    )


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Read bad files by the thousand.")
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", choices=["", *FAMILIES, SIDE_CARS, MOVING])
    parser.add_argument("--keep", type=Path, help="folder for files that broke a promise")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="fuzz-") as name:
        folder = options.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        report = run(options.cases, options.seed, folder, options.only)
    print(table(report))
    print("\n".join(report.broken[:200]) or "no promise was broken")
    if options.json:
        figures = {name: vars(family) for name, family in report.families.items()}
        options.json.write_text(
            json.dumps({"families": figures, "broken": report.broken}, indent=1)
        )
    return int(bool(report.broken))


if __name__ == "__main__":
    sys.exit(main())
