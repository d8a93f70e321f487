"""Request bodies: read within bounds of size and time, and files of a form straight to the disk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Any

from starlette.exceptions import HTTPException

from . import limits
from .safety import Message, Receive
from .uploads import Uploads, remove


def timed(receive: Receive) -> Receive:
    """Cut a body that comes too slowly, with status 408."""
    began, size, is_whole = time.monotonic(), 0, False

    async def wrapped() -> Message:
        nonlocal size, is_whole
        if is_whole:  # what follows is the end of the connection, which may take long
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), limits.SILENCE)
        except asyncio.TimeoutError:
            raise HTTPException(408, "the request came too slowly") from None
        size += len(message.get("body", b""))
        is_whole = not message.get("more_body", False)
        if time.monotonic() - began > limits.SILENCE + size / limits.SLOWEST:
            raise HTTPException(408, "the request came too slowly")
        return message

    return wrapped


async def pieces(receive: Receive, most: int) -> AsyncIterator[bytes]:
    """The parts of a body.

    Raises:
        HTTPException: 413 above ``most`` bytes, 408 when it is too slow, 400 when it ends early.
    """
    receive, size, more = timed(receive), 0, True

    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise HTTPException(400, "the connection was closed")
        piece, more = message.get("body", b""), message.get("more_body", False)
        size += len(piece)
        if size > most:
            raise HTTPException(413, f"a request like this holds at most {most:,} bytes")
        yield piece


async def receive_files(
    receive: Receive, content_type: str, uploads: Uploads, owner: str
) -> list[str]:
    """Keep the files of a form; nothing else may be in it, and nothing is left of one that fails.

    Returns:
        Their paths, in order.

    Raises:
        HTTPException: 400, 408, 413 or 429 with what is wrong.
    """
    uploads.sweep()
    form = _Form(uploads, content_type)
    try:
        most = min(limits.LARGEST_UPLOAD, uploads.room(owner))
        if most <= 0:
            raise HTTPException(
                429,
                (
                    "the uploads that are kept take up too much space: close windows, and wait a "
                    "minute"
                ),
            )
        async for piece in pieces(receive, most):
            form.write(piece)
        form.finish()
        if sum(form.sizes.values()) > uploads.room(owner):  # others came meanwhile
            raise HTTPException(413, "the uploads that are kept would take up too much space")
        uploads.add(owner, form.sizes)
    except BaseException:
        form.abandon()
        raise

    return list(form.sizes)


class _Form:
    """Writes each file of a multipart form as it comes: one is open at a time, and none is held in
    memory.
    """

    def __init__(self, uploads: Uploads, content_type: str) -> None:
        from python_multipart.multipart import MultipartParser, parse_options_header

        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or b"boundary" not in options:
            raise HTTPException(400, "an upload is multipart/form-data")
        self.sizes: dict[str, int] = {}
        self._uploads, self._options = uploads, parse_options_header
        self._file: IO[bytes] | None = None
        self._path, self._is_ended = "", False
        self._name, self._value, self._headers = b"", b"", dict[bytes, bytes]()
        names = (
            "part_begin part_data part_end header_field header_value header_end headers_finished "
            "end"
        )
        callbacks: Any = {f"on_{name}": getattr(self, f"_{name}") for name in names.split()}
        self._parser = MultipartParser(options[b"boundary"], callbacks)

    def write(self, piece: bytes) -> None:
        """Take the next piece of the body."""
        from python_multipart.exceptions import FormParserError

        try:
            self._parser.write(piece)
        except FormParserError:
            raise HTTPException(400, "the upload is damaged") from None
        except OSError as error:
            raise HTTPException(507, f"it can't be saved ({error.strerror or error})") from None

    def finish(self) -> None:
        """The body is over."""
        if not self._is_ended:
            raise HTTPException(400, "the upload is incomplete")

    def abandon(self) -> None:
        """Delete all of it."""
        if self._file is not None:
            self._file.close()
        remove(self.sizes)

    def _part_begin(self) -> None:
        self._name, self._value, self._headers = b"", b"", {}

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]
        self._check_header()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self._name) + len(self._value) > 4096 or len(self._headers) > 10:
            raise HTTPException(413, "the header of a file is too large")

    def _header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = self._options(self._headers.get(b"content-disposition", b""))
        if b"filename" not in options or options.get(b"name") != b"files":
            raise HTTPException(413, "an upload holds files, and no other fields")
        if len(self.sizes) >= limits.MOST_FILES:
            raise HTTPException(413, f"an upload holds at most {limits.MOST_FILES} files")
        path = self._uploads.new_path(options[b"filename"].decode("utf-8", "replace"))
        self._path = str(path)
        self.sizes[self._path] = 0
        self._file = Path(path).open("xb")  # noqa: SIM115 - closed when its part ends

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self.sizes[self._path] += end - start
        if self.sizes[self._path] > limits.LARGEST_FILE:
            raise HTTPException(413, f"a file holds at most {limits.LARGEST_FILE >> 20} MiB")
        assert self._file is not None
        self._file.write(data[start:end])

    def _part_end(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def _end(self) -> None:
        self._is_ended = True
