"""What the tests of cards share: networks, names that try to break out, and a look at HTML as a browser has it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import hypernetworks as hn
from hypernetworks.engine.network import Hypernetwork, Provenance
from hypernetworks.engine.structure import Structure

HOSTILE = (
    "plain",
    "it's",
    'a "quoted" one',
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "'); alert(1); ('",
    "');alert(1)//",
    '" onmouseover="alert(1)',
    "' onmouseover='alert(1)",
    "&amp; &lt;b&gt; &#39;);alert(1);(&#39;",
    "back\\slash\\' \\u0022",
    "brackets (1.2) [2] {3} {name} {0}",
    "emoji 🎨 ünïcödé 日本 \u2028 \u202e",
    "new\nline\ttab",
    "a=b,c;d|e",
    " spaces  ",
    "txt2img ~tabname",
    "None",
    "__proto__",
    "-->",
    "%s %(x)s ${y} `z`",
)
"""Stems of files. The parentheses, braces and entities are for those who escape twice, or too late."""


def write_network(path: Path, widths: tuple[int, ...] = (4, 768), **provenance: Any) -> None:
    """A small network file; its parents are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    network = Hypernetwork.create(
        path.stem, Structure((1.0, 0.01, 1.0) if min(widths) > 99 else (1.0, 0.25, 1.0)), widths
    )
    network.provenance = Provenance(**provenance)
    hn.write(network, path)


class Elements(HTMLParser):
    """The elements of a piece of HTML, in order.

    Attributes:
        found: per element its tag, attributes, and the text directly in it.
    """

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str], list[str]]] = []
        self._open: list[int] = []
        self.feed(text)
        self.close()
        assert self._open == [], f"not closed: {[self.found[i][0] for i in self._open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice: {attrs}"
        self.found.append((tag, {name: value or "" for name, value in attrs}, []))
        if tag not in ("img", "br", "input"):
            self._open.append(len(self.found) - 1)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("img", "br", "input"):
            return
        assert self._open, f"</{tag}> closes nothing"
        assert self.found[self._open[-1]][0] == tag
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open:
            self.found[self._open[-1]][2].append(data)

    @property
    def shape(self) -> list[tuple[str, tuple[str, ...]]]:
        """Tags and names of attributes: what must be the same whatever a card is called."""
        return [(tag, tuple(attributes)) for tag, attributes, _ in self.found]

    def of_class(self, name: str) -> list[tuple[dict[str, str], str]]:
        """Attributes and text of the elements that have a class."""
        return [(a, "".join(t)) for _, a, t in self.found if name in a.get("class", "").split()]

    @property
    def scripts(self) -> list[str]:
        """All that a browser would run, as it would see it."""
        values = [
            v
            for _, attributes, _ in self.found
            for k, v in attributes.items()
            if k.startswith("on")
        ]
        assert not [
            tag
            for tag, _, _ in self.found
            if tag in ("script", "iframe", "object", "embed", "style")
        ]
        assert not [
            v for _, a, _ in self.found for v in a.values() if v.lower().startswith("javascript:")
        ]
        return values


def toggled(script: str) -> list[Any]:
    """What a click's script hands to ``hypernetworksExtension.toggle``, less the tab.

    That is name, multiplier and activation text.
    """
    match = re.fullmatch(
        r"hypernetworksExtension\.toggle\((?:\"\w+\"|this\.closest\([^)]*\)[\w.]+\('_extra_tabs',''\)), (.*)\);",
        script,
    )
    assert match, script
    assert script.isascii()
    found = json.loads(f"[{match[1]}]")
    assert len(found) == 3
    return list(found)
