"""Text that is almost a tag: misspelled, unclosed, in other brackets, or of an unsupported kind."""

from __future__ import annotations

import difflib
import html
import re

from ..engine.schedules import is_invisible

_OPENING = r"(?:&lt;|[\\]?[<＜〈《‹«(\[{（［｛【]\s*)"
_CLOSING = ">＞〉》›»)]}）］｝】"
_TAIL = rf"[^\n{re.escape(_CLOSING)}<＜]"
_MISS = re.compile(
    rf"(?P<opening>{_OPENING})?(?P<word>hyper[ _-]?net(?:work)?s?)"
    rf"\s?[:：](?P<tail>{_TAIL}{{0,300}})"
    rf"(?P<closing>[{re.escape(_CLOSING)}])?",
    re.IGNORECASE,
)
_MISSPELLED = re.compile(
    r"<\s?(?P<word>[^\W\d]{4,16})(?P<gap>\s?[:;=：]\s?|\s)(?P<tail>[^<>\n]{1,300})>", re.IGNORECASE
)
"""In angle brackets a word that is nearly the right one, or the right one with another sign after
it.
"""
_FOREIGN = re.compile(
    r"<(lora|lyco|locon|loha|dora|ti|embedding|lbw):([^>\n]{1,300})>", re.IGNORECASE
)
_LONGEST = 60
_RIGHT = ("hypernet", "hypernetwork", "hypernets", "hypernetworks")


def near_misses(clean: str, *, loras: bool, negative: bool = False) -> list[str]:
    """A message for each text in a prompt that looks like a tag but isn't. Takes linear time.

    Args:
        clean: the prompt without its tags, as :func:`~hypernetworks.prompts.parse` returns it.
        loras: whether the host itself supports tags of LoRAs and the like.
        negative: whether it is a negative prompt, where tags have no effect anyway.
    """
    where = " in the prompt" if negative else ""
    text = "".join(sign for sign in clean if sign.isascii() or not is_invisible(sign))
    found = [line for match in _MISS.finditer(text) if (line := _line(match))]
    found += [line for match in _MISSPELLED.finditer(text) if (line := _line_of_misspelled(match))]
    lines = [f"{line}{where}" for line in found]
    if not loras:
        lines += [
            (
                f"{_short(match[0])} has no effect: only hypernetworks are supported here, and the "
                "tag is read as words"
            )
            for match in _FOREIGN.finditer(clean)
        ]
    return list(dict.fromkeys(lines))


def _line_of_misspelled(match: re.Match[str]) -> str | None:
    word, gap = match["word"].lower(), match["gap"].strip()
    if word in _RIGHT and gap in (":", "："):  # found already
        return None
    if not gap and word not in _RIGHT:  # "<hyperbole of words>" is none
        return None
    if not difflib.get_close_matches(word, _RIGHT, cutoff=0.76):
        return None

    tail = match["tail"].strip()
    right = _short(f"<hypernet:{tail.replace(gap, ':') if gap else tail}>")
    return f'"{_short(match[0])}" is no tag, and is read as words: write {right}'


def _line(match: re.Match[str]) -> str | None:
    tail = match["tail"].partition("&gt;")[0]
    if match["opening"] is None:
        tail = tail.partition(",")[0]
        if not tail[:1].strip():  # "hypernet: what it is" is a sentence
            return None
    items = [
        part.strip() for part in html.unescape(tail).replace("：", ":").rstrip("\\ ").split(":")
    ]
    written = _short(match[0] if match["opening"] is not None else f"{match['word']}:{tail}")
    right = _short(f"<hypernet:{':'.join(items) or 'NAME'}>")
    return f'"{written}" isn\'t a tag and is read as words: write {right}'


def _short(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
