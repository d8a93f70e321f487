"""The studio's application without a server, for the tests that ask it directly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hypernetworks as hn


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder, beside what the studio may read; without links in its path."""
    return tmp_path_factory.mktemp("home").resolve()


@pytest.fixture(scope="module")
def gate(home: Path) -> Iterator[Any]:
    """The gate before gradio, with the whole page behind it and the miniature as its model."""
    pytest.importorskip("gradio")
    from hypernetworks.hosts.diffusers import MINIATURE_NETWORKS, Painter
    from hypernetworks.studio.job_queue import JobQueue
    from hypernetworks.studio.train.trainer import Trainer
    from hypernetworks.studio.web import server
    from hypernetworks.training.folders import TrainingFolders

    patch = pytest.MonkeyPatch()
    for name in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE"):
        patch.setenv(name, "")  # what was there comes back
    painter = Painter(None, hn.Library([MINIATURE_NETWORKS]))
    trainer = Trainer(JobQueue(painter), TrainingFolders(home / "training"), home / "networks")
    yield server.build_app(trainer, home / "studio").app
    patch.undo()
