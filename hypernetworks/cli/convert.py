"""The command ``convert``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..console import pasted_path, say, warn
from ..errors import HypernetworkError, printable
from .outputs import refuse_existing
from .sources import expanded, is_folder, is_pattern
from .to_lora import LAYOUTS, add_to_lora, to_lora_file

FORMATS = (".safetensors", ".pt")


def add_convert(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``convert``."""
    parser.add_argument(
        "sources",
        type=pasted_path,
        nargs="+",
        metavar="SRC",
        help="files, folders, or patterns such as *.pt; with --to lora: one FILE or "
        "FILE:MULTIPLIER",
    )
    parser.add_argument(
        "target", type=pasted_path, metavar="DST", help="a .pt or .safetensors file, or a folder"
    )

    parser.add_argument(
        "--format",
        choices=(*(suffix[1:] for suffix in FORMATS), *LAYOUTS),
        help="format of the files in a folder (default: safetensors). With --to lora: the layout, "
        "which is kohya (default) for webuis and ComfyUI, comfyui (smaller; not for A1111), a1111 "
        "(smaller; also for SD.Next), or peft for diffusers",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    add_to_lora(parser)
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    # --format has two meanings, so that each kind of file has one option for what it looks like.
    is_layout = options.format in LAYOUTS
    if options.format is not None and is_layout != (options.to == "lora"):
        others = LAYOUTS if options.to == "lora" else [suffix[1:] for suffix in FORMATS]
        raise HypernetworkError(
            f"--format {options.format} can't be used with --to {options.to}: write "
            f"{' or '.join(others)}"
        )

    if options.to == "lora":
        refuse_existing([options.target], overwrite=options.overwrite)
        return to_lora_file(options)
    if options.network or options.base is not None:
        raise HypernetworkError("--network and --base are for --to lora: add it, or remove them")
    return _convert(options)


def _convert(options: argparse.Namespace) -> int:
    """Write each network in another format; one that fails doesn't stop the others."""
    from ..files import read, write

    pairs = _pairs(options.sources, options.target, f".{options.format or 'safetensors'}")
    refuse_existing((target for _, target in pairs), overwrite=options.overwrite)
    code = 0
    for source, target in pairs:
        shown = printable(str(target), 4096)
        try:
            network = read(source)
            # Only a folder is made: of a single target, a missing one is a typing error.
            if len(pairs) > 1 or options.target != target:
                target.parent.mkdir(parents=True, exist_ok=True)
            write(network, target)
        except HypernetworkError as error:
            warn(f"hypernetworks: {error}")
            code = 2
        except OSError as error:
            warn(f"hypernetworks: {shown} can't be written: {error.strerror}")
            code = 2
        else:
            say(shown)
    return code


def _pairs(sources: list[Path], target: Path, suffix: str) -> list[tuple[Path, Path]]:
    """Each source with its target, all of them known before anything is written.

    Raises:
        HypernetworkError: several files without a folder to write them to, or two with one name
            there.
    """
    if len(sources) == 1 and not target.is_dir() and not _are_several(sources[0]):
        return [(sources[0], target)]

    if target.suffix.lower() in FORMATS and not target.is_dir():
        raise HypernetworkError(
            f"{target} is a file, but several may be converted: name a folder to write to"
        )

    written: dict[Path, Path] = {}
    for source, relative in expanded(sources):
        path = (target / relative).with_suffix(suffix)
        if path in written:
            raise HypernetworkError(
                f"{written[path]} and {source} would both be written to {path}: convert them one "
                "by one"
            )
        written[path] = source
    return [(source, path) for path, source in written.items()]


def _are_several(source: Path) -> bool:
    return is_folder(source) or is_pattern(source)
