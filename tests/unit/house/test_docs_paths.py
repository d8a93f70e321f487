"""Every file and folder that the documents name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TOPS = "hypernetworks|tests|docs|scripts|javascript|benchmarks"
NAMED = re.compile(rf"(?<![\w./-])((?:{TOPS})/[\w./-]*[\w/])")
"""A path from the project's folder, in text, code or a block."""
SHORT = re.compile(r"(?<=`)(?:[\w-]+/)*[\w-]+\.(?:py|js|css|yaml)(?=`)")
"""A file whose folder the sentence implies."""
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
NOT_OURS = ("hypernetworks/v1", "models/hypernetworks")
"""Names with such a beginning that are addresses, or in a webui."""


def text_of(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def missing_paths(text: str) -> list[str]:
    """Paths that the text names and the project doesn't have."""
    named = [path for path in NAMED.findall(text) if not path.startswith(NOT_OURS)]
    return [path for path in named if not (ROOT / path).exists()]


def missing_files(text: str) -> list[str]:
    """Files that the text names by the end of their path and the project doesn't have."""
    ours = [
        p.relative_to(ROOT).as_posix() for top in TOPS.split("|") for p in (ROOT / top).rglob("*.*")
    ]
    ours += [p.name for p in ROOT.iterdir()]
    return [
        name for name in SHORT.findall(text) if not any(f"/{p}".endswith(f"/{name}") for p in ours)
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_names_exists(document: Path) -> None:
    assert missing_paths(text_of(document)) == []


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_files_named_in_short_exist(name: str) -> None:
    assert missing_files(text_of(ROOT / name)) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    links = LINK.findall(text_of(document))
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_the_readme_leads_to_the_architecture() -> None:
    assert "](CONTRIBUTING.md)" in text_of(ROOT / "README.md")
    assert "](docs/architecture.md)" in text_of(ROOT / "CONTRIBUTING.md")


def test_the_architecture_names_every_room() -> None:
    text = text_of(ROOT / "docs" / "architecture.md")
    rooms = [path for path in (ROOT / "hypernetworks").iterdir() if (path / "__init__.py").exists()]
    assert [room.name for room in rooms if f"`hypernetworks/{room.name}/`" not in text] == []
    assert rooms


def test_a_wrong_name_is_noticed() -> None:
    assert missing_paths("see hypernetworks/engine/nothing.py, `tests/none/`.") == [
        "hypernetworks/engine/nothing.py",
        "tests/none/",
    ]
    assert missing_files("see `nothing_of_ours.py`") == ["nothing_of_ours.py"]
