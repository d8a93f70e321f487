"""The environment variables for ``.venv``, without the user's own settings of Python and pip."""

from __future__ import annotations

import ast
import os
import subprocess
from collections.abc import Mapping

PYTHON_SETTINGS = ("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "__PYVENV_LAUNCHER__")
"""Variables that would make the environment's Python import packages from elsewhere."""
ELSEWHERE = (
    "target",
    "prefix",
    "root",
    "user",
    "python",
    "platform",
    "dry-run",
    "no-deps",
    "ignore-installed",
)
"""Options of pip that would install packages somewhere else, or leave some out."""


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables for the environment's Python and pip; proxies, certificates and indexes stay.

    An active conda or virtual environment does no harm, because the interpreter is called by its
    path.
    """
    unwanted = {*PYTHON_SETTINGS, *(f"PIP_{name.upper().replace('-', '_')}" for name in ELSEWHERE)}
    kept = {name: value for name, value in environment.items() if name not in unwanted}
    # PIP_USER=0 also overrules `user = true` in a pip.conf.
    return {**kept, "PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1", "PIP_USER": "0"}


def for_pip(python: str, environment: Mapping[str, str]) -> dict[str, str]:
    """As :func:`clean`, and without the lines of a ``pip.conf`` that install elsewhere."""
    cleaned = clean(environment)
    settings = _pip_settings(python, cleaned)
    # pip can't ignore a single line of a file. So if a file has such a line, pip ignores all files
    # and gets the other lines as variables.
    if not any(_option(key) in ELSEWHERE for key in settings if not key.startswith(":env:")):
        return cleaned

    for key, value in settings.items():
        section, _, option = key.partition(".")
        if section in ("global", "install") and option not in ELSEWHERE:
            cleaned.setdefault(f"PIP_{option.upper().replace('-', '_')}", " ".join(value.split()))
    return {**cleaned, "PIP_CONFIG_FILE": os.devnull}


def _option(key: str) -> str:
    return key.partition(".")[2]


def _pip_settings(python: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The output of ``pip config list``: ``section.option`` -> value."""
    done = subprocess.run(
        [python, "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        encoding="utf-8",  # which ``clean`` asks for; a Windows console has another
        errors="replace",
        check=False,
        env=dict(environment),
    )
    settings = {}

    for line in done.stdout.splitlines():
        key, equals, value = line.partition("=")
        try:
            settings[key] = str(ast.literal_eval(value)) if equals else ""
        except (ValueError, SyntaxError):
            continue

    return settings
