"""No payload of gradio's API makes the studio read a file that its session has not uploaded."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from hardening.served import PASSES
from starlette.exceptions import HTTPException

from hypernetworks.studio.web import limits, payloads, uploads

pytest.importorskip("gradio")
SECRET = "the content of a file that is nobody's business"
FILE = {"_type": "gradio.FileData"}


@pytest.fixture(scope="module")
def home(home: Path) -> Path:
    (home / "secret.txt").write_text(SECRET, encoding="utf8")
    if os.name != "nt":
        os.mkfifo(home / "pipe")
        (home / "link.txt").symlink_to(home / "secret.txt")
    return home


@pytest.fixture
def client(gate: Any) -> Iterator[TestClient]:
    with TestClient(
        gate, base_url="http://127.0.0.1:7870", raise_server_exceptions=False
    ) as client:
        yield client


def hostile(home: Path) -> list[Any]:
    secret = str(home / "secret.txt")
    paths = [
        secret,
        os.path.relpath(secret),
        f"file://{secret}",
        quote(secret, safe=""),
        str(home / "studio" / "gradio" / ".." / ".." / "secret.txt"),
        str(home / "link.txt"),
        str(home / "pipe"),
        "/proc/self/environ",
        "/dev/zero",
        "\\\\host\\share\\secret.txt",
        "http://127.0.0.1:9/secret.txt",
        "secret\0.txt",
    ]
    files: list[Any] = [{"path": path, "meta": FILE} for path in paths]
    nested = [[files[0]], {"a": files[0]}, [{"b": [files[0]]}], json.dumps(files[0])]
    return [*files, *nested, {"path": secret}, {**files[0], "url": "http://127.0.0.1:9/x"}]


def test_no_input_of_any_function_takes_a_strangers_path(
    gate: Any, client: TestClient, home: Path
) -> None:
    count = 0
    for number, function in gate._functions.items():
        for place, kind in enumerate(function.kinds):
            for value in hostile(home):
                data: list[Any] = [None] * len(function.kinds)
                data[place] = value
                body = {"data": data, "fn_index": number, "session_hash": "x"}
                if kind == "nothing":  # never read: what is sent is left out
                    checked = payloads.checked_call(body, gate._functions, None, lambda _: False)
                    assert checked["data"][place] is None
                    continue
                answer = client.post("/gradio_api/run/predict", json=body)
                assert answer.status_code in (400, 403, 422), (number, place, value, answer.text)
                assert SECRET not in answer.text
                count += 1
    assert count > 800
    copies = [path.name for path in (home / "studio").rglob("*") if path.is_file()]
    assert "secret.txt" not in copies


def test_gradios_own_check_is_on_as_well(gate: Any) -> None:
    assert gate._page.has_launched
    assert not gate._page.run_history


def test_an_upload_is_its_sessions_own_and_given_back(gate: Any, home: Path) -> None:
    with TestClient(gate, base_url="http://127.0.0.1:7870") as one:
        assert one.get("/").status_code == 200
        [path] = one.post("/gradio_api/upload", files={"files": ("a.png", b"mine")}).json()
        assert Path(path).read_bytes() == b"mine"
        assert one.get(f"/gradio_api/file={path}").content == b"mine"
        value = {"path": path, "meta": FILE, "orig_name": "a.png", "size": 4}
        body = {"data": [value], "fn_index": _taking_one_file(gate), "session_hash": "x"}
        assert one.post("/gradio_api/run/predict", json=body).status_code == 200
        with TestClient(gate, base_url="http://127.0.0.1:7870") as other:
            other.get("/")
            assert other.get(f"/gradio_api/file={path}").status_code == 403
            assert other.post("/gradio_api/run/predict", json=body).status_code == 403


def _taking_one_file(gate: Any) -> int:
    return next(n for n, one in gate._functions.items() if one.kinds == ("file",))


@pytest.mark.parametrize(
    "path", ["deep_link?session_hash=x", "proxy=http://127.0.0.1:9/", "run-history/buckets"]
)
def test_what_the_page_does_not_need_is_not_there(client: TestClient, path: str) -> None:
    assert client.get(f"/gradio_api/{path}").status_code == 404
    assert client.post("/gradio_api/component_server", json={}).status_code == 404


def test_too_much_is_refused(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_FILES", 3)
    monkeypatch.setattr(limits, "LARGEST_FILE", 100)
    many = [("files", (f"{n}.png", b"x")) for n in range(4)]
    assert client.post("/gradio_api/upload", files=many).status_code == 413
    large = [("files", ("a.png", b"x" * 101))]
    assert client.post("/gradio_api/upload", files=large).status_code == 413
    field = {"files": (None, b"x" * 10)}
    assert client.post("/gradio_api/upload", files=field).status_code == 413
    long = {"data": ["x" * (limits.LONGEST_TEXT + 1), "", 1, 1, 1, None, 1, 64, 64, *PASSES]}
    assert client.post("/gradio_api/call/generate", json=long).status_code == 413
    monkeypatch.setattr(limits, "MOST_QUEUED", 0)
    short = {"data": ["x", "", 1, 1, 1, None, 1, 64, 64, *PASSES]}
    assert client.post("/gradio_api/call/generate", json=short).status_code == 429


def test_uploads_go_when_their_session_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = uploads.Uploads(tmp_path)
    path = kept.new_path("../../a\\b.txt")
    path.write_text("x", encoding="utf8")
    assert path.name == "b.txt"
    kept.add("one", {str(path): 1})
    assert kept.holds("one", str(path))
    assert not kept.holds("two", str(path))
    with kept.window("one"):
        monkeypatch.setattr(limits, "CLOSED", 0.0)
        kept.sweep()
        assert path.exists()
    kept.sweep()
    assert not path.parent.exists()


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"data": [1e999]}', b'{"data": [NaN]}', b"[]"])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(HTTPException):
        payloads.written(payloads.parsed(body))
