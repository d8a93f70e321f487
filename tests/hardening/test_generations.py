"""A seeded part of the long run, and that it notices what it is there to notice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("resource", reason="open files and memory are counted with /proc")

from hardening.generations import Report, Sample, leaks, plot, run, write_csv

RUNS = 30


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc")
    return run(RUNS, 3, tmp_path_factory.mktemp("long run"), every=10, measured=5)


def test_a_part_of_the_long_run(report: Report, tmp_path: Path) -> None:
    assert report.broken == []
    assert report.repeated == 3 * RUNS // 10
    assert {name.split(",")[0] for name in report.counts} >= {
        "studio",
        "webui",
        "messages",
        "file written",
    }
    assert [sample.run for sample in report.samples] == list(range(5, RUNS + 1, 5))
    write_csv(report.samples, tmp_path / "figures.csv")
    assert len((tmp_path / "figures.csv").read_text().splitlines()) == 1 + len(report.samples)
    plot(report.samples, tmp_path / "figures.png")
    assert (tmp_path / "figures.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "name", ["left", "tensors", "descriptors", "threads", "resident", "temporary"]
)
def test_what_grows_is_noticed(name: str) -> None:
    level = Sample(0, 0.0, 0, 500, 6, 2, 1 << 29, 0, 0)
    steady = [replace(level, run=run) for run in range(40)]
    assert leaks(steady) == []
    step = {"resident": 1 << 22, "tensors": 30}.get(name, 10)
    growing = [
        replace(sample, **{name: getattr(sample, name) + step * sample.run}) for sample in steady
    ]
    assert any(name in line or "left" in line for line in leaks(growing))
