"""Argument parsers: their errors are one line, and names may stand before and after options."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ..console import warn


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print the message and end."""
        warn(f"{self.prog}: {message}")
        self.exit(2)


class CommandParser(Parser):
    """The parser of a command, which also takes names with options between them: ``NAME --steps 2
    FOLDER``.

    argparse fills all positional arguments at the first of them, and refuses what comes later.
    """

    _is_trying = False

    def error(self, message: str) -> NoReturn:
        """As :class:`Parser`; while another way is left, only to this class."""
        if self._is_trying:
            raise _RefusedError(message)
        super().error(message)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse; where that leaves anything, once more with the names collected first."""
        given = list(sys.argv[1:] if args is None else args)
        if self._is_trying or "_ARGCOMPLETE" in os.environ:
            return super().parse_known_args(given, namespace)

        usual = self._tried(super().parse_known_args, given, namespace)
        # Behind "--", everything is a name, which older versions of Python forget the second time.
        if not _is_whole(usual) and "--" not in given:
            collected = self._tried(self.parse_known_intermixed_args, given, namespace)
            usual = collected if not isinstance(collected, _RefusedError) else usual
        if isinstance(usual, _RefusedError):
            self.error(str(usual))
        return usual

    def _tried(
        self,
        parse: Callable[..., Any],
        given: list[str],
        namespace: argparse.Namespace | None,
    ) -> tuple[argparse.Namespace, list[str]] | _RefusedError:
        """What comes of one way to parse, which changes nothing that was passed."""
        self._is_trying = True
        try:
            copied = None if namespace is None else argparse.Namespace(**vars(namespace))
            found: tuple[argparse.Namespace, list[str]] = parse(given, copied)
        except _RefusedError as error:
            return error
        else:
            return found
        finally:
            self._is_trying = False


class _RefusedError(Exception):
    """What argparse would end with."""


def _is_whole(found: tuple[argparse.Namespace, list[str]] | _RefusedError) -> bool:
    return not isinstance(found, _RefusedError) and not found[1]
