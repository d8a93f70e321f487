"""The command line: :func:`main`, with a file for each command beside it.

An error prints one line and exits with code 2. An unusable tag prints a warning; the image is still
generated.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import hypernetworks

from ..console import say
from ..errors import HypernetworkError
from .bake import add_bake
from .convert import add_convert
from .create import add_create
from .generate import add_generate
from .inspect import add_inspect
from .merge import add_merge, add_resize
from .studio import add_studio
from .train import add_train


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        say(f"{self.prog}: {message}", sys.stderr)
        self.exit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, or print the help where none is named; returns the exit code."""
    parser = _parser()
    given = [*(sys.argv[1:] if arguments is None else arguments)]
    options = parser.parse_args(given)
    options.argv = given[1:]  # configurations are read between the defaults and what was typed
    if options.command is None:
        parser.print_help()
        return 0

    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except HypernetworkError as error:
        say(f"hypernetworks: {error}", sys.stderr)
        return 2
    except KeyboardInterrupt:
        say("hypernetworks: interrupted", sys.stderr)
        return 130
    except UnicodeEncodeError as error:  # such as a prompt typed in a Latin-1 terminal
        say(
            f"hypernetworks: an argument is not valid text ({error.object!a:.60}): use UTF-8",
            sys.stderr,
        )
        return 2
    except BrokenPipeError:  # such as `inspect … | head`
        sys.stderr.close()
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="hypernetworks", description="Hypernetworks for Stable Diffusion.", allow_abbrev=False
    )
    parser.add_argument(
        "--version", action="version", version=f"hypernetworks {hypernetworks.__version__}"
    )
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=_Parser)
    add_generate(
        commands.add_parser(
            "generate", help="generate images from a prompt with tags", allow_abbrev=False
        )
    )
    add_inspect(
        commands.add_parser("inspect", help="show what a file contains", allow_abbrev=False)
    )
    add_convert(
        commands.add_parser("convert", help="convert a file to another format", allow_abbrev=False)
    )
    add_bake(
        commands.add_parser(
            "bake", help="write a checkpoint that has networks in its weights", allow_abbrev=False
        )
    )
    add_merge(
        commands.add_parser("merge", help="write several networks as one", allow_abbrev=False)
    )
    add_resize(
        commands.add_parser(
            "resize", help="write a linear network with fewer hidden units", allow_abbrev=False
        )
    )
    add_create(
        commands.add_parser("create", help="create a new network to train", allow_abbrev=False)
    )
    add_train(commands.add_parser("train", help="train a network on images", allow_abbrev=False))
    add_studio(
        commands.add_parser("studio", help="open the studio in the browser", allow_abbrev=False)
    )

    return parser
