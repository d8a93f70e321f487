"""What people call a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypernetworks.files.naming import model_name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("models/painted.v2.safetensors", "painted.v2"),
        ("models/painted-v1.5/", "painted-v1.5"),
        ("models--someone--a-model/snapshots/0f1e2d3c/", "someone/a-model"),
        ("miniature/weights/", "miniature"),
    ],
)
def test_a_file_without_its_suffix_and_a_folder_in_full(
    tmp_path: Path, path: str, name: str
) -> None:
    model = tmp_path / path
    if path.endswith("/"):
        model.mkdir(parents=True)
    else:
        model.parent.mkdir(parents=True)
        model.touch()
    assert model_name(model) == name


def test_the_folder_that_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "painted-v1.5").mkdir()
    monkeypatch.chdir(tmp_path / "painted-v1.5")
    assert model_name(Path()) == "painted-v1.5"
