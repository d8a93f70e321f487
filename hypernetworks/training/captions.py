"""Captions: what an image is trained with, drawn anew for every sample, with tags shuffled and left
out if asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from ..errors import TrainingDataError
from ..files.lines import lines_of
from .words import Words, words_of

__all__ = ["NAME", "WORDS", "Caption", "Words", "read_template", "words_of"]

NAME, WORDS = "[name]", "[filewords]"
"""Placeholders of a template, as in AUTOMATIC1111: the network's name, and the image's own
words.
"""
LONGEST_LINE = 4000
"""Characters of a line of a template; each placeholder in it is a copy of the caption."""
_CHOICE = re.compile(r"\{([^{}]*\|[^{}]*)\}")
MOST_WAYS = 64
"""Templates of one image that are listed beforehand; more of them are encoded when they are drawn.
"""


@dataclass(frozen=True)
class Caption:
    """All that may be said of one image.

    Attributes:
        templates: lines with :data:`NAME` and :data:`WORDS`; each sample draws one.
        words: the image's own, tags parted by commas.
        name: stands for :data:`NAME`.
        shuffle: whether the tags come in a new order each time.
        tag_dropout: probability in [0, 1) with which each tag is left out.
        keep: how many of the first tags stay in front, neither shuffled nor left out.
        wildcards: whether ``{red|blue}`` means one of these, drawn each time.
        prefix, suffix: put before and after the words, each with a space.
        others: further captions of the image; each sample draws one of them or ``words``.
    """

    templates: tuple[str, ...] = (WORDS,)
    words: str = ""
    name: str = ""
    shuffle: bool = False
    tag_dropout: float = 0.0
    others: tuple[str, ...] = ()
    keep: int = 0
    wildcards: bool = False
    prefix: str = ""
    suffix: str = ""

    def draw(self, random: Random) -> str:
        """One caption; nothing is remembered, so that the next one is drawn anew."""
        template = random.choice(self.templates)
        words = random.choice((self.words, *self.others)) if self.others else self.words
        if self.wildcards:
            words = _chosen(words, random)

        if self.shuffle or self.tag_dropout:
            tags = [tag.strip() for tag in words.split(",") if tag.strip()]
            # Every draw comes from the sample's own generator, so order and number matter for
            # resuming.
            kept, free = tags[: self.keep], tags[self.keep :]
            free = [tag for tag in free if random.random() >= self.tag_dropout]
            if self.shuffle:
                random.shuffle(free)
            words = ", ".join([*kept, *free])
        return self._filled(template, words)

    @property
    def is_empty(self) -> bool:
        """Whether it never says anything."""
        return not any(text.strip() for text in self._all())

    def ways(self) -> tuple[str, ...] | None:
        """Every caption that :meth:`draw` can give, or ``None`` where they are too many to list."""
        drawn = self.shuffle or self.tag_dropout or (self.wildcards and self._has_wildcards)
        if drawn or self._count > MOST_WAYS:
            return None
        return tuple(dict.fromkeys(self._all()))

    @property
    def _has_wildcards(self) -> bool:
        return any("{" in words for words in (self.words, *self.others))

    @property
    def _count(self) -> int:
        return len(self.templates) * (1 + len(self.others))

    def _all(self) -> Iterator[str]:
        # Each of these is encoded beforehand, as far as they can be listed.
        for words in (self.words, *self.others):
            for template in self.templates:
                yield self._filled(template, words)

    def _filled(self, template: str, words: str) -> str:
        words = " ".join(part for part in (self.prefix, words, self.suffix) if part)
        return template.replace(WORDS, words).replace(NAME, self.name)


def _chosen(words: str, random: Random) -> str:
    """The words with one of each ``{a|b}``, from the innermost outwards."""
    for _ in range(MOST_WAYS):
        words, count = _CHOICE.subn(lambda match: random.choice(match[1].split("|")), words)
        if not count:
            break
    return words


def read_template(template: str) -> tuple[str, ...]:
    """Lines of a template: of the file when ``template`` is the path of one, else ``template``
    itself.

    Raises:
        TrainingDataError: an empty template, or a file that is not text.
    """
    path = Path(template) if template.endswith(".txt") else None
    if path is None:
        lines: Sequence[str] = [template.strip()]
    elif not path.is_file():
        raise TrainingDataError(f"the template {path}: there is no such file")
    else:
        try:
            lines = [line.strip() for line in lines_of(path.read_text(encoding="utf-8-sig"))]
        except (UnicodeDecodeError, OSError) as error:
            raise TrainingDataError(
                f"the template {path} isn't valid UTF-8 text: save it as UTF-8"
            ) from error

    lines = [line for line in lines if line]
    # [filewords] repeated in a long line would make captions of megabytes.
    if any(len(line) > LONGEST_LINE for line in lines):
        raise TrainingDataError(
            f"the template has a line of more than {LONGEST_LINE} characters: make it shorter"
        )
    if not lines:
        raise TrainingDataError(
            f'the template is empty: write something like "a picture of {WORDS}"'
        )

    return tuple(lines)
