"""What a run has been made of so far, kept in its state: the structure of its network, and the
images by content.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from ..engine.structure import Structure
from ..errors import printable
from .captions import Caption
from .examples import Example
from .seeding import mixed

MOST_NAMED = 5


def described(structure: Structure) -> dict[str, Any]:
    """A structure in plain types."""
    found = {field.name: getattr(structure, field.name) for field in fields(structure)}
    return {key: list(v) if isinstance(v, tuple) else v for key, v in found.items()}


def difference(before: Any, structure: Structure) -> str | None:
    """What of a structure is another than in a state, in words; ``None`` where they agree, or
    nothing is known.
    """
    if not isinstance(before, dict):
        return None
    for key, value in described(structure).items():
        if key in before and before[key] != value:
            said = printable(repr(before[key]))
            return f"{key.replace('_', ' ')} {said}, not {value!r}"
    return None


def listed(examples: Iterable[Example]) -> list[list[str]]:
    """Name, content, caption and size of each example, in plain types."""
    return [
        [
            example.name,
            example.key,
            _caption(example.caption),
            f"{'x'.join(map(str, example.shape[::-1]))} in {len(example.latents)}",
        ]
        for example in examples
    ]


def _caption(caption: Caption) -> str:
    parts: tuple[object, ...] = (
        caption.templates, caption.words, caption.others, caption.shuffle, caption.tag_dropout,
    )  # fmt: skip
    newer = (caption.keep, caption.wildcards, caption.prefix, caption.suffix)
    if any(newer):  # left out otherwise, as states of older versions don't have them
        parts += newer
    return f"{mixed(*parts):08x}"


def changes(before: Any, now: Sequence[Sequence[str]]) -> list[str]:
    """Sentences about what was added, removed, replaced, captioned anew or brought to another
    size.
    """
    # By name, as that is what a user can look for; the content tells whether it was replaced.
    earlier = {row[0]: row for row in before or () if _is_row(row)}
    if not earlier:
        return []

    current = {row[0]: row for row in now}
    both = [name for name in current if name in earlier]
    found = {
        "added": [name for name in current if name not in earlier],
        "removed": [name for name in earlier if name not in current],
        "replaced": [name for name in both if current[name][1] != earlier[name][1]],
        "given other captions": [name for name in both if current[name][2] != earlier[name][2]],
        "brought to another size": [name for name in both if current[name][3] != earlier[name][3]],
    }

    return [
        f"{_named(names)} {'was' if len(names) == 1 else 'were'} {what} since the earlier steps"
        for what, names in found.items()
        if names
    ]


def _is_row(row: Any) -> bool:
    return isinstance(row, list) and len(row) == 4 and all(isinstance(part, str) for part in row)


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(map(printable, names[:MOST_NAMED]))
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{len(names)} image{'' if len(names) == 1 else 's'} ({shown}{more})"
