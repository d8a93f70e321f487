"""Cards say which networks the loaded model can't use, without reading a tensor."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import hypernetworks as hn
from hypernetworks.studio import fitting
from hypernetworks.studio.fitting import Fitting


def test_what_does_not_fit_is_told_and_each_file_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, widths in (("one", (320, 768)), ("two", (320, 1024)), ("odd", (7,))):
        network = hn.Hypernetwork.create(name, hn.Structure((1, 2, 1), "linear"), widths)
        hn.write(network, tmp_path / f"{name}.safetensors")
    (tmp_path / "broken.pt").write_bytes(b"nothing")
    sd1 = [SimpleNamespace(width=320, kind="self"), SimpleNamespace(width=768, kind="cross")]
    sites: list[Any] = list(sd1)
    monkeypatch.setattr(fitting, "find_sites", lambda _unet: sites)
    reads: list[Path] = []
    reading = fitting.read_description
    monkeypatch.setattr(fitting, "read_description", lambda p: reads.append(p) or reading(p))

    library, known = hn.Library([tmp_path]), Fitting()
    problems = known.problems(library, SimpleNamespace(unet=None))
    assert set(problems) == {"two", "odd", "broken"}
    assert "SD2" in problems["two"]
    sites[1] = SimpleNamespace(width=1024, kind="cross")  # another model
    assert set(known.problems(library, SimpleNamespace(unet=None))) == {"one", "odd", "broken"}
    assert len(reads) == 4
