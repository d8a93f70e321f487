"""The command line: ``generate``, ``inspect``, ``convert``, ``create``, ``train``, ``studio``.

Anything unusable gets one line and exit code 2; a tag that can't be used gets one line, and the picture all the same.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from .cli_create import add_create
from .cli_train import add_train
from .errors import HypernetworkError
from .progress import Progress


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except HypernetworkError as error:
        print(f"hypernetworks: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("hypernetworks: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # such as `inspect … | head`
        sys.stderr.close()
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="hypernetworks", description="Hypernetworks for Stable Diffusion.", allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    _add_generate(
        commands.add_parser(
            "generate", help="make pictures from a prompt with tags", allow_abbrev=False
        )
    )
    _add_inspect(commands.add_parser("inspect", help="tell what is in a file", allow_abbrev=False))
    _add_convert(
        commands.add_parser("convert", help="write a file in another format", allow_abbrev=False)
    )
    add_create(
        commands.add_parser("create", help="make a fresh network to train", allow_abbrev=False)
    )
    add_train(commands.add_parser("train", help="train a network on pictures", allow_abbrev=False))
    _add_studio(commands.add_parser("studio", help="open the page", allow_abbrev=False))
    return parser


def _add_generate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", help='such as "a red apple <hypernet:ink:0.8>"')
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("picture.png"), help="PNG; several get numbers"
    )
    parser.add_argument("--negative", default="", help="negative prompt")
    parser.add_argument("--steps", type=_integer(1, 1000), default=20)
    parser.add_argument("--cfg", type=_number(0, 100), default=None, help="guidance scale")
    parser.add_argument("--seed", type=_integer(0, 2**63 - 1), default=0)
    parser.add_argument("--sampler", help='such as "Euler a"; left out, the model\'s own')
    parser.add_argument("--batch", type=_integer(1, 64), default=1, help="number of pictures")
    parser.add_argument("--size", type=_size, default=(None, None), help="such as 512 or 512x768")
    parser.add_argument(
        "--checkpoint", type=Path, help="SD1/SD2/SDXL .safetensors, or a diffusers folder"
    )
    parser.add_argument(
        "--hypernetworks", type=Path, action="append", default=[], metavar="DIR", help="repeatable"
    )
    parser.add_argument(
        "--prediction", choices=("epsilon", "v_prediction"), help="for SD2: epsilon for 512 models"
    )
    parser.add_argument("--device", default="cpu", help="such as cuda")
    parser.set_defaults(command=_generate)


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(command=_inspect)


def _add_convert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="SRC")
    parser.add_argument("target", type=Path, metavar="DST", help=".pt or .safetensors")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    parser.set_defaults(command=_convert)


def _add_studio(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=_integer(1, 65535), default=7870)
    parser.add_argument("--no-browser", action="store_true", help="don't open a browser")
    parser.add_argument("--listen", action="store_true", help="let other machines use it, too")
    entry = parser.add_mutually_exclusive_group()
    entry.add_argument(
        "--password",
        default=os.environ.get("HYPERNETWORKS_PASSWORD"),
        help="ask for it (without it, --listen makes one up; the variable HYPERNETWORKS_PASSWORD does the same)",
    )
    entry.add_argument(
        "--no-password", action="store_true", help="with --listen: let in whoever can reach it"
    )
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--hypernetworks", type=Path, action="append", default=[], metavar="DIR")
    parser.add_argument(
        "--training", type=Path, metavar="DIR", help="for runs and pictures to learn from"
    )
    parser.add_argument(
        "--pictures",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="pictures to learn from, below it",
    )
    parser.add_argument("--device", default="cpu", help="such as cuda")
    parser.set_defaults(command=_studio, prediction=None)


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,19}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f'"{text}" is not a whole number from {low} to {high}')
        return int(text)

    return parse


def _number(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f'"{text}" is not a number from {low} to {high}')
        return number

    return parse


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})(?:[xX](\d{1,5}))?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f'"{text}" is not a size, write 512 or 512x768')
    return int(match[1]), int(match[2] or match[1])


def _generate(options: argparse.Namespace) -> int:
    _need("diffusers", "transformers", "PIL")
    from .hosts.diffusers import Generation, save_png

    targets = _targets(options.output, options.batch)
    painter = load_painter(options)
    job = Generation(
        prompt=options.prompt,
        negative=options.negative,
        steps=options.steps,
        cfg=options.cfg,
        seed=options.seed,
        batch=options.batch,
        width=options.size[0],
        height=options.size[1],
        sampler=options.sampler,
    )
    with Progress(options.steps, "generating") as progress:
        result = painter.paint(job, lambda done, _total: progress.update(done))
    for message in result.messages:
        print(f"hypernetworks: {message}", file=sys.stderr)
    for picture, target in zip(result.pictures, targets, strict=True):
        save_png(picture, target)
        print(target)
    return 0


def load_painter(options: argparse.Namespace, own: Sequence[Path] = ()):  # type: ignore[no-untyped-def]
    """The model and library that ``--checkpoint``, ``--hypernetworks`` and ``--device`` ask for.

    Args:
        own: more folders of the user's, which need not exist.
    """
    from .hosts.diffusers import MINIATURE_NETWORKS, Painter
    from .library import Library

    for folder in options.hypernetworks:
        if not folder.is_dir():
            raise HypernetworkError(f"--hypernetworks {folder}: there is no such folder")
    library = Library([*options.hypernetworks, *own, MINIATURE_NETWORKS])
    return Painter(
        options.checkpoint, library, device=_device(options.device), prediction=options.prediction
    )


def _device(name: str) -> str:
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise HypernetworkError(
            f'--device {name}: this machine can\'t use it, leave it out for "cpu"'
        ) from error
    return name


def _targets(output: Path, batch: int) -> list[Path]:
    """One path per picture, checked before the work begins."""
    if output.suffix.lower() != ".png":
        raise HypernetworkError(
            f"-o {output}: pictures are written as PNG, use a name that ends in .png"
        )
    if not output.parent.is_dir() or output.is_dir():
        raise HypernetworkError(
            f"-o {output}: there is no folder {output.parent}, or it is a folder itself"
        )
    if batch == 1:
        return [output]
    return [output.with_name(f"{output.stem}-{i + 1}{output.suffix}") for i in range(batch)]


def _need(*modules: str) -> None:
    from importlib.util import find_spec

    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise HypernetworkError(
            f"this command needs {', '.join(missing)}: run `python install.py studio` once, or pip install "
            '"hypernetworks[studio]"'
        )


def _inspect(options: argparse.Namespace) -> int:
    from .files import read
    from .library import inspect

    reports, code = [], 0
    for path in options.files:
        try:
            reports.append(inspect(read(path), path).as_dict())
        except HypernetworkError as error:
            print(f"hypernetworks: {error}", file=sys.stderr)
            code = 2
    if options.json:
        print(json.dumps(reports, indent=1))
    else:
        print("\n\n".join(_report(report) for report in reports))
    return code


def _report(report: dict) -> str:  # type: ignore[type-arg]
    provenance = report["provenance"]
    dropout = (
        "none" if not any(report["dropout"]) else ", ".join(f"{p:g}" for p in report["dropout"])
    )
    trained = provenance["checkpoint_name"] or provenance["checkpoint_hash"] or "unknown"
    lines = [
        f"{report['name']}  ({report['path']})",
        f"  model family     {report['family']}",
        f"  widths           {', '.join(map(str, report['widths']))}",
        f"  layer structure  {', '.join(f'{m:g}' for m in report['layer_structure'])}",
        f"  activation       {report['activation']}"
        + (
            " (after the last layer too)"
            if report["activate_output"] and report["activation"] != "linear"
            else ""
        ),
        f"  layer norm       {'yes' if report['layer_norm'] else 'no'}",
        f"  dropout          {dropout}",
        f"  numbers          {report['parameters']:,} ({report['dtype']}, {report['bytes'] / 2**20:.1f} MiB)",
        f'  trained          {provenance["step"]:,} steps on {trained}, named "{provenance["name"] or ""}"',
        "  norms            " + f"\n{' ' * 19}".join(_norms(n) for n in report["norms"]),
        *(f"  warning          {warning}" for warning in report["warnings"]),
    ]
    return "\n".join(
        "".join(c if c.isprintable() or c == "\n" else "?" for c in line) for line in lines
    )


def _norms(norms: dict) -> str:  # type: ignore[type-arg]
    return f"{norms['width']:>5} {norms['side']}  " + "  ".join(
        f"{norm:.3g}" for norm in norms["norms"]
    )


def _convert(options: argparse.Namespace) -> int:
    from .files import read, write

    if options.target.exists() and not options.overwrite:
        raise HypernetworkError(f"{options.target} exists: choose another name, or add --overwrite")
    write(read(options.source), options.target)
    print(options.target)
    return 0


def _studio(options: argparse.Namespace) -> int:
    _need("diffusers", "transformers", "PIL", "gradio")
    from .library.hashing import Hashes, usual_store
    from .studio import launch
    from .studio.train.places import Places
    from .studio.web.login import new_password
    from .studio.web.server import TRAINING

    own = (
        [] if options.hypernetworks else [Path.home() / "hypernetworks"]
    )  # made when a network is dropped on the page
    if options.password == "":
        raise HypernetworkError("the password is empty: write one, or leave --password out")
    password = (
        None
        if options.no_password
        else options.password or (new_password() if options.listen else None)
    )
    painter = load_painter(options, own)
    painter.library.hashes = Hashes(usual_store())
    launch(
        painter,
        port=options.port,
        open_browser=not options.no_browser,
        anywhere=options.listen,
        password=password,
        places=Places(options.training or Path.home() / TRAINING, tuple(options.pictures)),
    )
    return 0
