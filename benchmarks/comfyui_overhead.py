"""What a network adds to sampling in a real ComfyUI, on its CPU: ``python -m
benchmarks.comfyui_overhead --comfyui PATH``.

Both models sample by turns in one server process. A ratio is of the two times of one round. *Own*
is the time that the process itself used: on a machine that is busy with other things, it is the one
to trust.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from .cases import Summary

TESTS = Path(__file__).resolve().parents[1] / "tests"


def main() -> None:
    """Start a server, run the graph of each kind of network, print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--comfyui", type=Path, required=True, help="folder of ComfyUI")
    parser.add_argument("--python", type=Path, help="its Python (default: PATH/venv/bin/python)")
    parser.add_argument("--checkpoint", type=Path, help="of SD1; without it, one is made")
    parser.add_argument("--size", type=int, default=256, help="edge of the image in pixels")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--kinds", nargs="+", default=["linear", "relu"])
    parser.add_argument("--output", type=Path, default=Path("build/comfyui_overhead.json"))
    options = parser.parse_args()
    comfyui = options.comfyui.resolve()
    python = options.python or comfyui / "venv/bin/python"
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = options.checkpoint or _made(comfyui, python, Path(folder))
        figures = _measured(options, comfyui, python, Path(folder) / "base", checkpoint)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(figures, indent=1), encoding="utf-8")


def _made(comfyui: Path, python: Path, folder: Path) -> Path:
    path = folder / "sd1.safetensors"
    script = TESTS / "real_comfyui/make_checkpoint.py"
    subprocess.run([str(python), str(script), "sd1", str(path)], cwd=comfyui, check=True)
    return path


def _measured(
    options: argparse.Namespace, comfyui: Path, python: Path, folder: Path, checkpoint: Path
) -> dict[str, object]:
    sys.path[:0] = [str(TESTS), str(TESTS / "real_comfyui")]  # the server of the opt-in tests
    import graphs
    from comfyui_server import running

    figures: dict[str, object] = {"size": options.size, "steps": options.steps}
    with running(comfyui, python, folder, {"sd1": checkpoint.resolve()}) as host:
        host.patience = 24 * 3600
        for kind in options.kinds:
            graphs.write(host, kind, {"linear": graphs.LINEAR, "relu": graphs.RELU}[kind])
            nodes = graphs.graph(
                host,
                extra={
                    "3": ("EmptyLatentImage", _latent(options.size)),
                    "9": graphs.apply(f"{kind}.pt"),
                    "5": ("ProbeTime", _timing(options, folder / f"{kind}.json")),
                },
            )
            del nodes["4"]
            history = host.run(nodes)
            assert history["status"]["status_str"] == "success", history["status"]
            rounds = json.loads((folder / f"{kind}.json").read_text(encoding="utf-8"))
            figures[kind] = rounds
            _report(kind, rounds)
    return figures


def _latent(size: int) -> dict[str, int]:
    return {"width": size, "height": size, "batch_size": 1}


def _timing(options: argparse.Namespace, file: Path) -> dict[str, object]:
    inputs = {"plain": ["0", 0], "model": ["9", 0], "positive": ["1", 0], "negative": ["2", 0]}
    how = {"steps": options.steps, "rounds": options.rounds, "file": str(file)}
    return {**inputs, "latent": ["3", 0], **how}


def _report(kind: str, rounds: list[list[list[float]]]) -> None:
    """A round is (wall, own) without the network, and the same with it."""
    for place, clock in enumerate(("wall", "own")):
        ratio = Summary.of([model[place] / plain[place] for plain, model in rounds])
        print(
            f"{kind}, {clock} time: {ratio.median:.4f} ({ratio.low:.4f} to {ratio.high:.4f}), "
            f"{len(rounds)} rounds",
            flush=True,
        )


if __name__ == "__main__":
    main()
