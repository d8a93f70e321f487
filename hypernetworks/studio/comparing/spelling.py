"""Networks are compared by their files: a prompt may write a name otherwise than the axes do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ...errors import HypernetworkError
from ...hosts.diffusers import Generation
from ...library import Library
from ...prompts import Tag
from ...prompts.rewriting import rewrite_tags


class Spellings:
    """One way of writing each network.

    Args:
        library: which says what a name means.
        names: of the networks that are compared; the first spelling of each is the one that stays.
    """

    def __init__(self, library: Library, names: Iterable[str] = ()) -> None:
        self._library = library
        self._files: dict[str, Path | None] = {}
        self._names: dict[Path, str] = {}
        for name in names:
            path = self._file(name)
            if path is not None:
                self._names.setdefault(path, name)

    def of(self, name: str) -> str:
        """A name as the axes write it; one that means none of their networks stays as it is."""
        if not self._names:
            return name
        path = self._file(name)
        return name if path is None else self._names.get(path, name)

    def in_tags(self, job: Generation) -> Generation:
        """The job with the tags of its prompt in these spellings."""

        def change(tag: Tag) -> Tag:
            spelled = self.of(tag.name)
            return tag if spelled == tag.name else tag.with_name(spelled)

        return replace(job, prompt=rewrite_tags(job.prompt, change))

    def _file(self, name: str) -> Path | None:
        # A sheet has the same few names in hundreds of cells.
        if name not in self._files:
            try:
                self._files[name] = self._library.find(name, suggest=False).path
            except HypernetworkError:
                self._files[name] = None
        return self._files[name]
