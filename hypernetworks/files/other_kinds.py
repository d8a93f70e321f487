"""What people have under a network's name that is no network, and what to do about it."""

from __future__ import annotations

_OTHERS = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it, and use the file in it",
    b"Rar!": "a RAR archive: unpack it, and use the file in it",
    b"\x1f\x8b": "a gzip archive: unpack it, and use the file in it",
    b"\x89PNG": "an image, perhaps the preview: download the network itself",
    b"\xff\xd8\xff": "an image, perhaps the preview: download the network itself",
    b"GGUF": "a GGUF model, not a hypernetwork",
}
"""Signatures of other files that people have under a network's name."""


def other_kind(head: bytes) -> str | None:
    """What a file is instead of a network, by its first bytes; ``None`` if it may be one."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        return (
            "this is a Git LFS pointer, not the file itself: run `git lfs pull`, or download the "
            "file"
        )
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        return (
            "this is a web page, not the file itself: download it again, logged in if the site "
            "requires it"
        )

    # A safetensors file begins with a length, so this is JSON text.
    if start.startswith(b"{") and any(
        mark in start for mark in (b'"error"', b'"message"', b'"detail"')
    ):
        return "this is a server's error message, not the file itself: download it again, logged in"
    if head and not head.strip(b"\0"):
        return "it begins with zeros: the download was not finished, so download it again"

    kind = next((kind for signature, kind in _OTHERS.items() if head.startswith(signature)), None)
    return None if kind is None else f"this is {kind}"
