"""Sets up whatever is needed to run.

Run by a webui (no argument): looks whether anything is missing, changes nothing, and is silent when
all is there. Run by a person: ``python install.py studio`` or ``python install.py test`` makes
``.venv`` beside this file, installs what that needs, and does it (``hypernetworks/installing``).
The second time it starts at once.

No annotations and no newer syntax here: a Python that is too old has to understand this file to be
told so.
"""
# ruff: noqa: UP031, UP036, PTH100, PTH120

import os
import sys

NEEDED_BY_WEBUI = ("torch", "numpy", "safetensors")


def check_webui():
    """What a webui's start needs: one line when a package is missing, otherwise nothing."""
    from importlib.util import find_spec

    missing = [name for name in NEEDED_BY_WEBUI if find_spec(name) is None]
    if missing:
        sys.stdout.write(
            "Hypernetworks: %s is missing; the webui's own requirements bring it. Nothing done.\n"
            % ", ".join(missing)
        )
    return 0


def main(arguments):
    """Do what the arguments say; returns the exit code."""
    if not arguments:
        return check_webui()
    if sys.version_info < (3, 10):
        sys.stderr.write("Python 3.10 to 3.14 is needed, this is %s.\n" % sys.version.split()[0])
        return 2

    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    from hypernetworks.installing import command

    return command.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
