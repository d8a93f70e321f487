"""The GPU benchmark runs in small on the CPU, so that nothing in it is tried for the first time on
a GPU.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PARTS = (
    *("eager", "host", "graphs", "memory", "kernels", "slider", "moving", "sdxl", "cards"),
    *("compiled", "counts", "counts-call", "waits"),
    *("training", "training-memory", "training-sdxl"),
)
STACKS = ["relu", "linear", "three linear", "layer norm + swish", "relu, text alone"]


def rehearsed(folder: Path, *parts: str) -> str:
    """Run parts of the rehearsal, all of them without a failure; returns what it printed."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--rehearse", "--out", str(folder)]
    done = subprocess.run(
        [*command, *(["--only", *parts] if parts else [])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_rehearsal_of_the_gpu_benchmark(tmp_path: Path) -> None:
    printed = rehearsed(tmp_path)
    assert "failed or left out: nothing" in printed
    rows = {}
    for part in PARTS:
        content = json.loads((tmp_path / f"{part}.json").read_text(encoding="utf-8"))
        rows[part] = [row[0] for row in content["tables"][0]["rows"]]
        assert content["about"]["device"] == "cpu"
        assert all(cell for row in content["tables"][0]["rows"] for cell in row[1:2]), part
    assert {part for part, found in rows.items() if not found} == set()

    # Every comparison has all of its stacks, and every stack is compared in every way.
    for part in ("eager", "graphs", "sdxl", "memory", "slider"):
        assert rows[part] == STACKS, part
    assert set(rows["host"]) >= set(STACKS)
    assert rows["moving"] == ["linear", "three linear", "relu"]
    assert rows["waits"] == STACKS
    assert len(rows["cards"]) == 9
    assert len(rows["training-memory"]) == 3
    assert set(rows["training-sdxl"]) == {"whole", "fp8", "plain", "streamed", "floor"}
    content = json.loads((tmp_path / "waits.json").read_text(encoding="utf-8"))
    assert all(row[1:3] == ["0", "0"] for row in content["tables"][0]["rows"]), content
    assert (tmp_path / "eager-1.png").stat().st_size > 1000
    assert "failed or left out: nothing" in (tmp_path / "summary.txt").read_text(encoding="utf-8")


def test_a_part_that_fails_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With parts that do nothing: the others are run above."""
    pytest.importorskip("diffusers")
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.gpu import __main__ as benchmark
    from benchmarks.gpu.report import Table

    def fails(*_: object) -> Iterator[Table]:
        yield Table("before it fails", ("what",), [["this"]])
        raise RuntimeError("on purpose")

    def works(*_: object) -> Iterator[Table]:
        yield Table("as usual", ("what",), [["that"]])

    monkeypatch.setattr(benchmark, "parts", lambda: {"memory": fails, "cards": works})
    monkeypatch.setattr(benchmark, "_steadily", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["x", "--rehearse", "--out", str(tmp_path)])
    assert benchmark.main() == 1
    assert "on purpose" in capsys.readouterr().err
    for part, title in (("memory", "before it fails"), ("cards", "as usual")):
        content = json.loads((tmp_path / f"{part}.json").read_text(encoding="utf-8"))
        assert [table["title"] for table in content["tables"]] == [title]
    summary = (tmp_path / "summary.txt").read_text(encoding="utf-8")
    assert "failed or left out: memory: RuntimeError" in summary


def test_one_call_checks_everything_on_a_gpu_in_nine_minutes() -> None:
    """``dev/gpu-check``: its limits, its order, and that the wheels beside it are not committed."""
    script = (ROOT / "dev" / "gpu-check").read_text(encoding="utf-8")
    limits = dict(re.findall(r"\$\{(\w+):-([\d.]+)\}", script))
    assert float(limits["SECONDS_IN_ALL"]) <= 9 * 60 - 10
    assert float(limits["TEST_SECONDS"]) <= 180
    assert float(limits["TEST_SECONDS"]) + float(limits["BENCHMARK_SECONDS"]) + 100 <= 520
    assert 60 * float(limits["BENCHMARK_MINUTES"]) <= float(limits["BENCHMARK_SECONDS"])
    places = [
        script.index(f"part {name} ") for name in ("machine", "tests", "benchmark", "training")
    ]
    assert places == sorted(places)

    for name in re.findall(r"test_\w+_on_\w+|test_on_the_device", script):
        assert (ROOT / "tests" / "cuda" / f"{name}.py").exists(), name
    assert ".whl/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    if os.name == "posix":
        subprocess.run(["bash", "-n", ROOT / "dev" / "gpu-check"], check=True)
        assert os.access(ROOT / "dev" / "gpu-check", os.X_OK)


def test_what_a_start_of_a_webui_imports_and_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """``benchmarks.webui_startup``: its tables, from starts that never were."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import webui_startup as benchmark

    log = (
        "import time: self [us] | cumulative | imported package\n"
        "import time:      2000 |       2500 |   hypernetworks.engine\n"
        "Startup time: 3.0s\n"
        "import time:       500 |        500 | json\n"
    )
    assert benchmark.imported(log) == {"hypernetworks.engine": 0.002, "json": 0.0005}

    ours = {f"load scripts/{benchmark.SCRIPT}": 0.05, "load scripts": 1.25, "total": 3.0}
    without = benchmark.Start(3.0, 2.0, {"load scripts": 1.0, "total": 2.9}, {"json": 0.1}, 0.5)
    imports = {"json": 0.1, "wave": 0.002, "hypernetworks.engine": 0.02, "pandas": 0.3}
    with_ = benchmark.Start(3.25, None, ours, imports, 1.5)
    lines = benchmark.report([(without, with_)] * 3).splitlines()
    assert lines[0] == "3 rounds, load 1.000 (0.500 to 1.500)"
    assert "0.250 (0.250 to 0.250) |" in lines[3]
    assert not any(line.startswith("| processor") for line in lines), "not known of both"
    assert "| our script alone | 0.000 (0.000 to 0.000) | 0.050 (0.050 to 0.050) |" in lines[5]
    assert lines[-1].startswith("| part: load scripts |")

    listed = benchmark.report_of_imports((without, with_))
    assert "* of this project, 1 in 0.020 s" in listed
    assert "* of Python, 1 in 0.002 s: wave" in listed
    assert "* others, 1 in 0.300 s: pandas" in listed


SDNEXT = """\
06:17:45-166368 DEBUG    Extensions init time: total=0.66 xyz_grid.py=0.03
                         hypernetworks-measured=0.12 __init__.py=0.01
06:17:45-195595 INFO     Huggingface: transfer=XET parallel=True direct=False
06:17:47-911537 INFO     Startup time: total=31.85 libraries=15.94 torch=4.03
                         ui-control=0.09
06:17:47-923224 DEBUG    Save: file="secrets.json" json=0 bytes=2 time=0.008
"""


def test_what_a_start_of_sdnext_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no route for its profile, and wraps the lines of its log."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import webui_startup as benchmark

    parts = benchmark.logged(SDNEXT)
    assert parts == {
        "total": 31.85,
        "libraries": 15.94,
        "torch": 4.03,
        "ui-control": 0.09,
        "extensions/total": 0.66,
        "extensions/xyz_grid.py": 0.03,
        "extensions/hypernetworks-measured": 0.12,
        "extensions/__init__.py": 0.01,
    }
    assert benchmark.of_ours(benchmark.Start(13.0, 12.0, parts, {}, None)) == 0.12
    assert benchmark.logged("Startup time: 9.3s (import torch: 5.0s).") == {}


@pytest.mark.parametrize(
    ("known", "given"),
    [
        (("--config", "--ui-settings-file", "--no-prompt-history"), "--no-prompt-history"),
        (("--config", "--ui-settings-file"), "--ui-settings-file"),
        (("--config", "--ui-settings-file", "--secrets"), "--config"),
    ],
    ids=["forge", "classic", "sdnext"],
)
def test_a_webui_gets_options_that_it_knows(
    known: tuple[str, ...], given: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The command line that the benchmark and ``tests/real_host`` start a webui with."""
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "real_host"))
    from webui_server import command_line

    source = tmp_path / "modules" / "cmd_args.py"
    source.parent.mkdir()
    source.write_text("\n".join(f'parser.add_argument("{name}")' for name in known), "utf-8")

    command = command_line(tmp_path, Path("python"), 7860, tmp_path, "--cpu", None)
    assert given in command
    assert command[-1] == "--cpu"
    assert "--hypernetwork-dir" not in command
    assert ("--no-prompt-history" in command) == ("--no-prompt-history" in known)
    settings = "--config" if "--secrets" in known else "--ui-settings-file"
    assert command[command.index(settings) + 1] == str(tmp_path / "config.json")
    assert ("--config" in command) == ("--secrets" in known), "elsewhere that is a model's"
