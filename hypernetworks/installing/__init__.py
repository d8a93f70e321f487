"""What ``python install.py studio`` and ``test`` do: find the right torch, make ``.venv``, run in
it.

Standard library only, since nothing else is installed yet. A webui never loads this room.
"""
