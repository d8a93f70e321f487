"""Who may talk to the studio, what files it takes, and that no text becomes markup."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch

import hypernetworks as hn
from hypernetworks.studio import cards, widgets
from hypernetworks.studio.job_queue import Update
from hypernetworks.studio.web import safety

HOSTILE = "<img src=x onerror=alert(1)>\"'&\u202e\x00"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a healthy network."""
    torch.manual_seed(0)
    network = hn.Hypernetwork.create("some", hn.Structure((1, 2, 1), "linear"), (8, 768))
    made = tmp_path_factory.mktemp("content") / "made.safetensors"
    hn.write(network, made)
    return made.read_bytes()


def add(folder: Path, name: str, content: bytes) -> dict[str, Any]:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 1000):
            yield content[start : start + 1000]

    return asyncio.run(cards.add_file(folder, name, chunks()))


# ------------------------------------------------------------------ addresses


@pytest.mark.parametrize("host", ["127.0.0.1:7870", "localhost:7870", "[::1]:7870", "localhost"])
def test_its_own_page_may_do_all(host: str) -> None:
    assert safety.refusal({"host": host}, anywhere=False) is None
    assert safety.refusal({"host": host, "origin": f"http://{host}"}, anywhere=False) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example:7870"},
        {"host": "evil.example:7870", "origin": "http://evil.example:7870"},  # DNS rebinding
        {"host": "127.0.0.1:7870", "origin": "http://evil.example"},
        {
            "host": "127.0.0.1:7870",
            "origin": "http://127.0.0.1:8000",
        },  # another program of this machine
        {"host": "127.0.0.1:7870", "origin": "null"},
        {"host": "127.0.0.1:7870", "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
        {"host": "[bad"},
        {},
    ],
)
def test_pages_of_others_are_refused(headers: dict[str, str]) -> None:
    assert safety.refusal(headers, anywhere=False)


def test_with_listen_the_name_is_free_but_the_origin_is_not() -> None:
    assert (
        safety.refusal(
            {"host": "studio.lan:7870", "origin": "http://studio.lan:7870"}, anywhere=True
        )
        is None
    )
    assert safety.refusal(
        {"host": "studio.lan:7870", "origin": "http://evil.example"}, anywhere=True
    )


def test_a_refused_request_never_reaches_the_page() -> None:
    reached, sent = [], []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    for host in (b"evil.example", b"127.0.0.1:7870"):
        scope = {"type": "http", "path": host, "headers": [(b"Host", host)]}
        asyncio.run(safety.OwnAddressOnly(app)(scope, None, send))  # type: ignore[arg-type]
    assert reached == [b"127.0.0.1:7870"]
    assert [m["status"] for m in sent if "status" in m] == [403, 200]
    assert any(name == b"content-security-policy" for name, _ in sent[-1]["headers"])


# ------------------------------------------------------------------ markup


@pytest.mark.parametrize(
    "made",
    [
        widgets.text(HOSTILE),
        widgets.messages_html([HOSTILE]),
        widgets.empty_html(HOSTILE),
        widgets.progress_html(Update(note=HOSTILE)),
    ],
)
def test_hostile_text_is_shown_and_nothing_else(made: str) -> None:
    assert "&lt;img" in made
    assert "<img" not in made
    assert "\u202e" not in made
    assert "\x00" not in made


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("no network is chosen: choose one", "No network is chosen: choose one"),
        ("a network.safetensors: it is damaged", "a network.safetensors: it is damaged"),
        ("it may be v1.5: choose another", "It may be v1.5: choose another"),
    ],
)
def test_messages_begin_with_a_capital_and_names_stay(said: str, shown: str) -> None:
    assert f"<li>{shown}</li>" in widgets.messages_html([said])


# ------------------------------------------------------------------ files that are added


def test_a_network_is_kept(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "new"
    assert add(folder, "ünï 1.safetensors", content)["family"] == "SD1"
    assert [p.name for p in folder.iterdir()] == ["ünï 1.safetensors"]
    assert (folder / "ünï 1.safetensors").read_bytes() == content
    if os.name != "nt":
        mask = os.umask(0)
        os.umask(mask)
        assert (folder / "ünï 1.safetensors").stat().st_mode & 0o777 == 0o666 & ~mask


def test_what_is_there_is_never_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ink.pt").write_bytes(b"mine")
    with pytest.raises(hn.HypernetworkError, match="already exists"):
        add(tmp_path, "ink.pt", content)
    assert (tmp_path / "ink.pt").read_bytes() == b"mine"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../ink.pt",
            "/etc/ink.pt",
            "a/b.pt",
            "a\\b.pt",
            "C:\\b.pt",
            "C:b.pt",
            ".pt",
            ".hidden.pt",
            "..",
            "",
            "ink",
        ),
        *(
            "ink.exe",
            "ink.html",
            "a:b.pt",
            "<b>.pt",
            "a>.pt",
            "a\0.pt",
            "a\n.pt",
            " .pt",
            f"{'x' * 300}.pt",
        ),
        *("ink.pt/", "\u202egnp.pt", "NUL.pt", "com1.safetensors", "con.v2.pt", "aux .pt"),
    ],
)
def test_bad_names_are_refused(name: str, tmp_path: Path, content: bytes) -> None:
    with pytest.raises(hn.HypernetworkError):
        add(tmp_path / "folder", name, content)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "damaged", [b"", b"hello", b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.", "cut"]
)
def test_what_is_no_network_is_refused_and_nothing_stays(
    damaged: bytes | str, tmp_path: Path, content: bytes
) -> None:
    with pytest.raises(hn.HypernetworkError, match=r"^(?!ink)"):  # the page says the name
        add(tmp_path, "ink.safetensors", content[:-50] if isinstance(damaged, str) else damaged)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_too_large_is_refused(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards, "LARGEST", 100)
    with pytest.raises(hn.HypernetworkError, match="larger"):
        add(tmp_path, "ink.safetensors", content)
    assert list(tmp_path.iterdir()) == []


def test_files_go_to_the_users_own_folder(tmp_path: Path) -> None:
    shipped = tmp_path / "shipped"
    assert cards.own_folder(hn.Library([tmp_path / "mine", shipped]), shipped) == tmp_path / "mine"
    assert cards.own_folder(hn.Library([shipped]), shipped) is None


def test_previews_come_from_the_library_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "ink.safetensors").write_bytes(content)
    (tmp_path / "lib" / "ink.png").write_bytes(b"picture")
    (tmp_path / "secret.png").write_bytes(b"secret")
    library = hn.Library([tmp_path / "lib"])
    assert cards.preview_of(library, "ink") == tmp_path / "lib" / "ink.png"
    for name in ("../secret", "secret", "/etc/passwd", ""):
        with pytest.raises(hn.HypernetworkError):
            cards.preview_of(library, name)
    (described,) = cards.described(library)
    assert described["name"] == described["full_name"] == "ink"
    assert described["preview"]


@pytest.mark.parametrize(
    "host", ["192.168.1.5:7870", "[fe80::1]:7870", "studio.local", "localhost"]
)
def test_without_a_password_addresses_and_local_names_are_answered(host: str) -> None:
    assert safety.refusal({"host": host}, anywhere=True, only_addresses=True) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "1.2.3.4.evil.example"},
        {"host": "local"},
        {"host": "a@192.168.1.5"},
        {"host": "192.168.1.5, evil.example"},
        {"host": ""},
        {"host": "192.168.1.5", "origin": "http://192.168.1.5.evil.example"},
        {"host": "192.168.1.5", "origin": "http://x@192.168.1.5"},
        {"host": "192.168.1.5", "sec-fetch-site": "same-site"},
        {"host": "192.168.1.5", "sec-fetch-site": "anything"},
    ],
)
def test_without_a_password_names_of_others_are_refused(headers: dict[str, str]) -> None:
    assert safety.refusal(headers, anywhere=True, only_addresses=True) is not None
