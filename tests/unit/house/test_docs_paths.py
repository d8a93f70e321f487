"""Every file, folder, module and name of ours that the documents use exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "dev/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "hypernetworks/miniature/MODEL_CARD.md",
]
TOPS = "hypernetworks|tests|docs|scripts|javascript|benchmarks"
NAMED = re.compile(rf"(?<![\w./-])((?:{TOPS})/[\w./-]*[\w/])")
"""A path from the project's folder, in text, code or a block."""
SHORT = re.compile(r"(?<=`)(?:[\w-]+/)*[\w-]+\.(?:py|js|css|yaml)(?=`)")
"""A file whose folder the sentence implies."""
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
ANCHOR = re.compile(r"\]\((?!https?:)([^)#]*)#([^)]+)\)")
DOTTED = re.compile(r"(?<![\w./-])(hypernetworks(?:\.[A-Za-z_]\w*)+)(?![\w/])")
"""A module of ours, or a name in one, such as ``hypernetworks.training.Run``."""
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
PLACEHOLDER = re.compile(
    r"(?-i:\b[A-Z]+(?:-[A-Z]+){2,}\b)|\bTODO\b|\bFIXME\b|\bTBD\b|\bXXX\b|lorem ipsum"
    r"|<(?:your|the|this)[ _-][^>]*>|\[(?:insert|your) [^]]*\]|\byour[-_](?:user\w*|name|org\w*)\b"
    r"|example\.(?:com|org|net)",
    re.IGNORECASE,
)
"""Text that somebody meant to replace before a reader sees it."""
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


def imported_names(text: str) -> list[str]:
    """What the Python examples of the text import from us, dotted."""
    trees = [ast.parse(block) for block in BLOCK.findall(text)]
    imports = [n for tree in trees for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    ours = [i for i in imports if str(i.module).partition(".")[0] == "hypernetworks"]
    return [f"{i.module}.{alias.name}" for i in ours for alias in i.names]


def missing_names(text: str) -> list[str]:
    """Dotted names of ours, in text and examples, that lead nowhere. Nothing is imported for it."""
    return [name for name in [*DOTTED.findall(text), *imported_names(text)] if not leads(name)]


def leads(dotted: str) -> bool:
    """Whether this is a module of the package, or a word of one's source."""
    path = ROOT / dotted.replace(".", "/")
    if (path / "__init__.py").exists() or path.with_suffix(".py").exists():
        return True
    holder, name = path.parent, path.name
    source = holder / "__init__.py" if holder.is_dir() else holder.with_suffix(".py")
    return source.exists() and bool(re.search(rf"\b{name}\b", text_of(source)))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_names_in_a_document_lead_somewhere(document: Path) -> None:
    assert missing_names(text_of(document)) == []


def test_a_name_that_has_moved_is_noticed() -> None:
    moved = "```python\nfrom hypernetworks.hosts.training import Watcher\n```"
    assert "hypernetworks.hosts.training.Watcher" in missing_names(moved)
    assert missing_names("`hypernetworks.training.Nothing`") == ["hypernetworks.training.Nothing"]
    assert missing_names("`hypernetworks.training.Run`, `hypernetworks.read(path)`.") == []


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


def anchors_of(text: str) -> set[str]:
    """What a link can name after ``#``: the headings, as GitHub spells them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_headings(document: Path) -> None:
    links = [
        (document.parent / p if p else document, a) for p, a in ANCHOR.findall(text_of(document))
    ]
    assert [anchor for path, anchor in links if anchor not in anchors_of(text_of(path))] == []


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


def placeholders(text: str) -> list[str]:
    """Words in the text that wait for somebody to fill them in."""
    return [match[0] for match in PLACEHOLDER.finditer(text)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_placeholder_is_left_in_a_document(document: Path) -> None:
    assert placeholders(text_of(document)) == []


@pytest.mark.parametrize(
    "text",
    [
        "git clone ADDRESS-OF-THIS-PROJECT hypernetworks",
        "git clone https://github.com/your-name/hypernetworks",
        "git clone <the address>",
        "See https://example.com/docs.",
        "TODO: describe it",
        "[insert a link]",
    ],
)
def test_a_placeholder_is_noticed(text: str) -> None:
    assert placeholders(text)
    assert placeholders("Write `<hypernet:NAME:0.7>` for the file NAME-STEP.pt, as UTF-8.") == []
