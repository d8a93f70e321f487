"""What ``python install.py studio`` and ``test`` do: choose a torch, make ``.venv``, run in it.

Standard library only, because nothing else is installed yet. A webui never loads this room.
"""
