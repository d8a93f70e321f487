"""The command line: :func:`main`, with a file for each command beside it.

An error prints one line and exits with code 2. An unusable tag prints a warning; the image is still
generated.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

import hypernetworks

from ..console import warn
from ..errors import HypernetworkError, printable
from .bake import add_bake
from .compare import add_compare
from .convert import add_convert
from .create import add_create
from .extract import add_extract
from .generate import add_generate
from .inspect import add_inspect
from .list_networks import add_list
from .merge import add_merge, add_resize
from .parsers import CommandParser, Parser
from .studio import add_studio
from .train import add_train

COMMANDS: tuple[tuple[str, Callable[[argparse.ArgumentParser], None], str], ...] = (
    ("generate", add_generate, "generate images from a prompt with tags"),
    ("compare", add_compare, "compare networks and settings on a sheet of images"),
    ("list", add_list, "list the networks that a tag can name"),
    ("inspect", add_inspect, "show what a hypernetwork file contains"),
    ("convert", add_convert, "convert hypernetworks to another format, or to a LoRA"),
    ("bake", add_bake, "write a checkpoint that has networks in its weights"),
    ("merge", add_merge, "write several networks as one"),
    ("resize", add_resize, "write a linear network with fewer hidden units"),
    ("extract", add_extract, "write the linear network nearest to a LoRA or a fine-tuning"),
    ("create", add_create, "create a new network to train"),
    ("train", add_train, "train a network on images"),
    ("studio", add_studio, "open the studio in the browser"),
)
"""Each command: its name, the function that adds its arguments, and its line in the help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, or print the help if there is none; returns the exit code."""
    try:
        return _run([*(sys.argv[1:] if arguments is None else arguments)])
    except HypernetworkError as error:
        warn(f"hypernetworks: {error}")
        return 2
    except KeyboardInterrupt:
        warn("hypernetworks: interrupted")
        return 130
    except UnicodeEncodeError as error:  # such as a prompt typed in a Latin-1 terminal
        warn(f"hypernetworks: an argument isn't valid text ({error.object!a:.60}): use UTF-8")
        return 2
    except BrokenPipeError:  # such as `inspect … | head`
        sys.stderr.close()  # else Python prints the error once more when it exits
        return 0
    except OSError as error:  # such as a folder that may not be opened, or too long a name
        line = _of_system(error)
        with suppress(OSError):  # the warnings may go to the same full disk
            warn(f"hypernetworks: {line}")
        return 2


def _run(given: list[str]) -> int:
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what could be typed next
        _complete(parser)
    options = parser.parse_args(given)
    options.argv = given[1:]  # configurations are read between the defaults and what was typed
    if options.command is None:
        parser.print_help()
        return 0

    command: Callable[[argparse.Namespace], int] = options.command
    return command(options)


def _of_system(error: OSError) -> str:
    """What the system refused, and why, in one line."""
    reason = printable(" ".join((error.strerror or str(error)).split()), 1000)
    if error.filename is not None:
        return f"{printable(os.fsdecode(error.filename), 1000)}: {reason}"
    # The system names no file where it can't write on, such as to the standard output.
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"{reason}: delete or move some files, or write elsewhere" if is_full else reason


def _complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell and end, if argcomplete is installed."""
    try:
        from argcomplete import autocomplete
    except ImportError:
        return

    autocomplete(parser)


def _parser() -> argparse.ArgumentParser:
    # Without abbreviations: a new option must not change what a script's shortened one means.
    parser = Parser(
        prog="hypernetworks", description="Hypernetworks for Stable Diffusion.", allow_abbrev=False
    )
    parser.add_argument(
        "--version", action="version", version=f"hypernetworks {hypernetworks.__version__}"
    )
    parser.set_defaults(command=None)

    commands = parser.add_subparsers(metavar="COMMAND", parser_class=CommandParser)
    for name, add, summary in COMMANDS:
        add(
            commands.add_parser(
                name,
                help=summary,
                description=f"{summary[0].upper()}{summary[1:]}.",
                allow_abbrev=False,
            )
        )
    return parser
