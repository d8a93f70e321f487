"""SHA-256 of files, remembered under a title for as long as the file is not newer."""

import hashlib
from pathlib import Path

import modules.cache
from modules import shared

cache = modules.cache.cache
read: list[str] = []
"""Paths of the files that were hashed, for tests."""


def calculate_sha256(filename):
    """Read the file."""
    read.append(filename)
    return hashlib.sha256(Path(filename).read_bytes()).hexdigest()


def sha256_from_cache(filename, title, use_addnet_hash=False):
    """What is remembered."""
    record = cache("hashes").get(title)
    if record is None or Path(filename).stat().st_mtime > record["mtime"]:
        return None
    return record["sha256"]


def sha256(filename, title, use_addnet_hash=False):
    """What is remembered, or computed and remembered from now on."""
    known = sha256_from_cache(filename, title)
    if known is not None or shared.cmd_opts.no_hashing:
        return known
    value = calculate_sha256(filename)
    cache("hashes")[title] = {"mtime": Path(filename).stat().st_mtime, "sha256": value}
    return value
