"""Requests to end a command: Ctrl+C, SIGTERM, a terminal window that is closed, a user who logs
off.

After each of them, a training should save its state, as it does after Ctrl+C. When a terminal is
closed, POSIX systems send SIGHUP, and Windows calls the console's handlers; Python turns Ctrl+Break
into SIGBREAK. Windows ends the process as soon as the handler for a closed window returns, and
after five seconds at the latest. Our handler therefore waits until everything is saved.
"""

from __future__ import annotations

import _thread
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

REQUESTS: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
)
"""Signals that ask a program to end, as far as this system has them."""
_AT_ONCE = (signal.SIGINT, signal.SIGTERM)
"""The second of these ends at once. The system may send the others twice by itself."""
_CONSOLE_GOES = (2, 5, 6)
"""Events of a Windows console: the window is closed, the user logs off, the machine shuts down."""
WITH_INPUT = "HYPERNETWORKS_END_WITH_INPUT"
"""Environment variable: the end of the standard input is such a request, too.

For programs that start a command. They close its input to stop it, and it also ends when they are
killed; signals to a single process don't exist on Windows.
"""
_LONGEST_WAIT = 30.0
"""Seconds. Windows waits five when a window is closed, and somewhat longer at a shutdown."""


class Ending:
    """Whether the command was asked to end. ``bool(ending)`` works in any thread."""

    def __init__(self, said: str) -> None:
        self._said, self._asked, self._is_urgent = said, False, False
        self._is_over = threading.Event()

    def __bool__(self) -> bool:
        return self._asked

    def on_signal(self, number: int, frame: object) -> None:
        """Note the first request, end at once on the second."""
        if self._is_urgent or (self._asked and number in _AT_ONCE):
            raise KeyboardInterrupt
        if not self._asked:
            self._asked = True
            with suppress(OSError):  # the terminal may be what went
                os.write(2, f"\n{self._said}\n".encode("ascii", "replace"))

    def watch_input(self) -> None:
        """Note a request when the standard input ends; in a thread that nobody waits for."""

        def watch() -> None:
            # Not sys.stdin: a thread that reads it when Python ends is a fatal error.
            with suppress(OSError):
                while os.read(0, 1024):
                    pass
            self._asked = True

        threading.Thread(target=watch, daemon=True).start()

    def on_console(self, event: int) -> bool:
        """Called by Windows in a thread of its own; the process lives until this returns."""
        if event not in _CONSOLE_GOES:
            return False  # Ctrl+C and Ctrl+Break come as signals
        self._asked = self._is_urgent = True  # there is no time for the rest of a step
        _thread.interrupt_main()
        self._is_over.wait(_LONGEST_WAIT)
        return True

    def over(self) -> None:
        """Let a waiting handler return: everything is saved."""
        self._is_over.set()


@contextmanager
def noticed(said: str) -> Iterator[Ending]:
    """Inside, the first request to end is noted, and the second Ctrl+C or SIGTERM raises
    ``KeyboardInterrupt``.

    A signal that is ignored, as with ``nohup``, stays ignored. Other threads than the main one note
    nothing, because Python delivers signals to the main thread only.

    Args:
        said: written to the terminal at the first request.
    """
    ending = Ending(said)
    if threading.current_thread() is not threading.main_thread():  # signals are not ours to take
        yield ending
        return

    before = {
        number: signal.signal(number, ending.on_signal)
        for number in REQUESTS
        if signal.getsignal(number) not in (signal.SIG_IGN, None)
    }
    if os.environ.get(WITH_INPUT):
        ending.watch_input()
    try:
        with _console(ending):
            yield ending
    finally:
        ending.over()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _console(ending: Ending) -> Iterator[None]:
    """On Windows, receive the console's events inside."""
    if sys.platform != "win32":
        yield
        return

    kind: Any = ctypes.WINFUNCTYPE(ctypes.c_int, ctypes.c_uint)
    handler = kind(ending.on_console)
    set_handler = ctypes.windll.kernel32.SetConsoleCtrlHandler
    set_handler(handler, 1)
    try:
        yield
    finally:
        set_handler(handler, 0)
