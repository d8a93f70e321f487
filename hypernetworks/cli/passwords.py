"""Where the studio's password comes from: a prompt, a file, the environment, or the command
line.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from pathlib import Path

from ..console import pasted_path
from ..errors import HypernetworkError

VARIABLE = "HYPERNETWORKS_PASSWORD"
LARGEST = 4096
"""Bytes of a password file that are read."""
_ASK = "\0"
"""What ``--password`` without a value stands for: no argument of a process can hold it."""


def add_password(parser: argparse.ArgumentParser) -> None:
    """The options of which one may be given."""
    entry = parser.add_mutually_exclusive_group()
    entry.add_argument(
        "--password",
        nargs="?",
        const=_ASK,
        help="require a password: without a value, the command asks for it. A value on the command line shows in the "
        f"process list; --password-file and the variable {VARIABLE} do not. With --listen alone, "
        "one is generated",
    )
    entry.add_argument(
        "--password-file",
        type=pasted_path,
        metavar="FILE",
        help="read the password from a file's first line",
    )
    entry.add_argument(
        "--no-password",
        action="store_true",
        help="with --listen: allow anyone who can reach it to use it",
    )


def chosen_password(options: argparse.Namespace) -> str | None:
    """The password that the options name, else the environment's; ``None`` where there is none.

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
        again = getpass.getpass("Repeat it: ") if password else ""
    except EOFError:
        raise HypernetworkError("no password was entered: start the studio again") from None
    if password != again:
        raise HypernetworkError("the two passwords differ: start the studio again")
    return password


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST).decode("utf-8-sig")
    except OSError as error:
        raise HypernetworkError(
            f"the password file {path} can't be read ({error.strerror or error})"
        ) from error
    except UnicodeDecodeError:
        raise HypernetworkError(
            f"the password file {path} is not UTF-8 text: save it as UTF-8"
        ) from None
    return text.splitlines()[0] if text else ""
