"""The studio's password: typed, from a file, from the environment, or from the command line."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from pathlib import Path

from ..console import pasted_path
from ..errors import HypernetworkError
from ..files.lines import lines_of

VARIABLE = "HYPERNETWORKS_PASSWORD"
LARGEST = 4096
"""Bytes of a password file that are read: ``--password-file`` might name any file."""
_ASK = "\0"
"""The value of ``--password`` without a value: no argument of a process can contain this."""


def add_password(parser: argparse.ArgumentParser) -> None:
    """Add the options for the password, of which one at most may be given."""
    entry = parser.add_mutually_exclusive_group()

    entry.add_argument(
        "--password",
        nargs="?",
        const=_ASK,
        help="require a password; without a value, the command asks for it. Other users can see a "
        "value on the command line in the process list, unlike one in a --password-file or in the "
        f"variable {VARIABLE}. With --listen and none of these, a password is generated",
    )
    entry.add_argument(
        "--password-file",
        type=pasted_path,
        metavar="FILE",
        help="read the password from the first line of a file",
    )
    entry.add_argument(
        "--no-password",
        action="store_true",
        help="with --listen: anyone who can reach the page can use it",
    )


def chosen_password(options: argparse.Namespace) -> str | None:
    """The password from the options, or from the environment; ``None`` if there is none.

    Raises:
        HypernetworkError: it is empty, or can't be read.
    """
    if options.no_password:
        return None
    if options.password_file is not None:
        password = _read(options.password_file)
    elif options.password == _ASK:
        password = _asked()
    elif options.password is not None:
        password = options.password
    elif VARIABLE in os.environ:
        password = os.environ[VARIABLE]
    else:
        return None

    if not password:
        raise HypernetworkError("the password is empty: choose another, or leave the option out")
    return str(password)


def _asked() -> str:
    if not sys.stdin.isatty():
        raise HypernetworkError(
            f"--password without a value needs a terminal: use --password-file or {VARIABLE}"
        )
    try:
        password = getpass.getpass("Password for the studio: ")
        # Typed blind, so twice: a mistake would lock the user out.
        again = getpass.getpass("Repeat it: ") if password else ""
    except EOFError:
        raise HypernetworkError("no password was entered: start the studio again") from None
    if password != again:
        raise HypernetworkError("the two passwords differ: start the studio again")
    return password


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            # Windows' editors begin UTF-8 files with a mark, which is no part of the password.
            text = file.read(LARGEST).decode("utf-8-sig")
    except OSError as error:
        raise HypernetworkError(
            f"the password file {path} can't be read ({error.strerror or error})"
        ) from error
    except UnicodeDecodeError:
        raise HypernetworkError(
            f"the password file {path} is not UTF-8 text: save it as UTF-8"
        ) from None
    return lines_of(text)[0] if text else ""
