"""Whether the user has interrupted the queue."""

from __future__ import annotations


class InterruptProcessingException(Exception):  # noqa: N818 - ComfyUI's name
    """Ends a job."""


INTERRUPTED: list[bool] = []


def throw_exception_if_processing_interrupted() -> None:
    if INTERRUPTED:
        INTERRUPTED.clear()
        raise InterruptProcessingException
