r"""Tags in a prompt: found, parsed, and written again with other values.

.. code-block:: bnf

    prompt     ::= { text | tag | foreign }
    tag        ::= "<hypernet:" NAME [ ":" multiplier ] ">"
    foreign    ::= "<" word ":" items ">"                      (other extra networks; left alone)
    multiplier ::= [ schedule ] { ":" argument }
    schedule   ::= number | pair { ("," | ";") pair }
    pair       ::= number "@" position
    argument   ::= ("start" | "stop") "=" position             (active between, both included)
                 | "hr" "=" schedule                           (the multiplier in the hires pass)
                 | ("k" | "v") "=" number                      (factors for keys and for values)
                 | "attn" "=" ("cross" | "self")
                 | "lbw" "=" ( preset | number { "," number } )  (factors per block)

A tag is what AUTOMATIC1111's own expression ``<(\w+):([^>]+)>`` matches with the word
``hypernet``. Positions are fractions of the pass if the largest is at most 1, otherwise steps,
counted from 0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from ..engine.multiplier import Multiplier, format_number
from ..errors import MultiplierError, TagError
from .editing import LONGEST, Editing, editings

EXTRA_NETWORK = re.compile(r"<(\w+):([^>]+)>")
"""AUTOMATIC1111's expression for extra networks in a prompt."""
KIND = "hypernet"


@dataclass(frozen=True)
class Tag:
    """A ``<hypernet:…>`` in a prompt. ``str(tag)`` is exactly its text there.

    Attributes:
        items: the texts between the colons; the first is the name.
        start: index of its first character in the prompt.
        editing: the prompt editing around it, where it can't work.
    """

    items: tuple[str, ...]
    start: int = field(default=0, compare=False)
    editing: Editing | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, name: str, multiplier: float | str) -> Tag:
        """The tag for a network, with a number or a schedule."""
        text = multiplier if isinstance(multiplier, str) else format_number(multiplier)
        return cls((name, text))

    @property
    def name(self) -> str:
        """The name of a network: a file's stem, or ``folder/stem``."""
        return self.items[0]

    @property
    def multiplier(self) -> Multiplier | None:
        """The multiplier; ``None`` if the tag has an :attr:`error`."""
        return self._understood[0]

    @property
    def error(self) -> TagError | None:
        """Why the tag can't be used, with its position and what would be right; else ``None``."""
        return self._understood[1]

    @cached_property
    def _understood(self) -> tuple[Multiplier | None, TagError | None]:
        try:
            if not self.name.strip():
                raise MultiplierError("it has no name: write <hypernet:NAME>")
            multiplier = Multiplier.from_items(self.items[1:])
            # Last, because the advice is a tag of its own, which must be valid.
            if self.editing is not None:
                raise MultiplierError(self._editing_advice(self.editing))
        except MultiplierError as error:
            return None, TagError(f"{self} at character {self.start + 1}: {error}")
        return multiplier, None

    def _editing_advice(self, editing: Editing) -> str:
        if editing.never:
            return "its half of the [prompt editing] is never used: remove the tag"
        if editing.window is None:
            return (
                "tags are removed before [alternation], so it can't switch them: use a schedule "
                "outside the brackets"
            )
        instead = replace(self.with_argument(*editing.window), editing=None)
        advice = "use a schedule" if instead.error is not None else f"write {instead}"
        return (
            "tags are removed before [prompt editing], so it can't switch them: "
            f"{advice} outside the brackets instead"
        )

    def with_name(self, name: str) -> Tag:
        """The same tag for another network."""
        return replace(self, items=(name, *self.items[1:]))

    def with_multiplier(self, value: float | str) -> Tag:
        """The same tag with another number or schedule; all else stays as it was written."""
        text = value if isinstance(value, str) else format_number(value)
        items = list(self.items)
        index = next((i for i, item in enumerate(items) if i and "=" not in item), None)
        if index is None:
            items.insert(1, text)
        else:
            items[index] = text
        return replace(self, items=tuple(items))

    def with_argument(self, key: str, value: str) -> Tag:
        """The same tag with a named argument; a missing multiplier is written as 1."""
        items = [item for item in self.items[1:] if item.partition("=")[0].strip() != key]
        if not any("=" not in item for item in items):
            items.insert(0, "1")
        return replace(self, items=(self.name, *items, f"{key}={value}"))

    def __str__(self) -> str:
        return f"<{KIND}:{':'.join(self.items)}>"


def parse(prompt: str) -> tuple[str, list[Tag]]:
    """Remove the hypernetwork tags from a prompt. No text makes it raise an error.

    Returns:
        The prompt as AUTOMATIC1111 leaves it (spaces and tags of other networks stay), and the tags
        in order. A tag that can't be used has an ``error``.

    Raises:
        TagError: it isn't a text.
    """
    if not isinstance(prompt, str):
        kind = type(prompt).__name__
        raise TagError(f'a prompt is a text, not {kind}: write parse("a cat <hypernet:ink:0.7>")')

    found = list(_extra_networks(prompt))
    own = [m for m in found if m[1] == KIND]
    masked = _masked(prompt, found) if own and len(prompt) <= LONGEST else ""
    edited = editings(masked, [m.start() for m in own])
    tags = [
        Tag(tuple(m[2].split(":")), m.start(), editing)
        for m, editing in zip(own, edited, strict=True)
    ]

    return _without(prompt, own, lambda _: ""), tags


def _extra_networks(prompt: str) -> Iterator[re.Match[str]]:
    """All matches of :data:`EXTRA_NETWORK`, in linear time."""
    # Behind the last ">", every "<word:" would make the expression search the rest of the text.
    return EXTRA_NETWORK.finditer(prompt, 0, prompt.rfind(">") + 1)


def _masked(prompt: str, found: Sequence[re.Match[str]]) -> str:
    """The prompt with all characters of tags replaced by null characters."""
    return _without(prompt, found, lambda m: "\0" * (m.end() - m.start()))


def _without(
    prompt: str, found: Sequence[re.Match[str]], instead: Callable[[re.Match[str]], str]
) -> str:
    pieces, position = list[str](), 0
    for match in found:
        pieces += (prompt[position : match.start()], instead(match))
        position = match.end()
    return "".join([*pieces, prompt[position:]])
