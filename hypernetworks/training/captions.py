"""Captions: what an image is trained with, drawn anew for every sample, with tags shuffled and left
out if asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from ..errors import TrainingDataError

NAME, WORDS = "[name]", "[filewords]"
"""Placeholders of a template, as in AUTOMATIC1111: the network's name, and the image's own words.
"""
LARGEST = 1 << 16
"""Bytes of a caption file; what is drawn from it is made anew for every sample."""
LONGEST_LINE = 4000
"""Characters of a line of a template; each placeholder in it is a copy of the caption."""
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
    """

    templates: tuple[str, ...] = (WORDS,)
    words: str = ""
    name: str = ""
    shuffle: bool = False
    tag_dropout: float = 0.0

    def draw(self, random: Random) -> str:
        """One caption; nothing is remembered, so that the next one is drawn anew."""
        template = random.choice(self.templates)
        words = self.words
        if self.shuffle or self.tag_dropout:
            tags = [tag.strip() for tag in words.split(",") if tag.strip()]
            tags = [tag for tag in tags if random.random() >= self.tag_dropout]
            if self.shuffle:
                random.shuffle(tags)
            words = ", ".join(tags)
        return self._filled(template, words)

    @property
    def is_empty(self) -> bool:
        """Whether it never says anything."""
        return not any(self._filled(template, self.words).strip() for template in self.templates)

    def ways(self) -> tuple[str, ...] | None:
        """Every caption that :meth:`draw` can give, or ``None`` where they are too many to list."""
        if self.shuffle or self.tag_dropout or len(self.templates) > MOST_WAYS:
            return None
        return tuple(
            dict.fromkeys(self._filled(template, self.words) for template in self.templates)
        )

    def _filled(self, template: str, words: str) -> str:
        return template.replace(WORDS, words).replace(NAME, self.name)


def words_of(picture: Path) -> str:
    """An image's words: the text file of the same name, else the file name without leading numbers.

    Raises:
        TrainingDataError: the text file is not text.
    """
    beside = picture.with_suffix(".txt")
    if beside.is_file():
        try:
            if beside.stat().st_size > LARGEST:
                raise TrainingDataError(
                    f"{beside.name}: it is too long for a caption. Keep it below {LARGEST >> 10} KiB"
                )
            return " ".join(beside.read_text(encoding="utf-8-sig").split())
        except (UnicodeDecodeError, OSError) as error:
            raise TrainingDataError(
                f"{beside.name} isn't valid UTF-8 text: save it as UTF-8"
            ) from error

    return re.sub(r"^[-\d]+\s*", "", picture.stem).replace("_", " ").strip()


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
            lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        except (UnicodeDecodeError, OSError) as error:
            raise TrainingDataError(
                f"the template {path} isn't valid UTF-8 text: save it as UTF-8"
            ) from error

    lines = [line for line in lines if line]
    if any(len(line) > LONGEST_LINE for line in lines):
        raise TrainingDataError(
            f"the template has a line of more than {LONGEST_LINE} characters: make it shorter"
        )
    if not lines:
        raise TrainingDataError(
            f'the template is empty: write something like "a picture of {WORDS}"'
        )

    return tuple(lines)
