"""A webui of a few hundred lines for tests: the parts of a host's ``modules`` package that the
extension touches.

Written from what hosts do, not from their text; ``tests/contract/test_webui_sources.py`` compares
names and parameters with the real sources. What differs by host follows :data:`HOSTS`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent
HOSTS = ("a1111", "forge", "reforge", "classic", "sdnext")
ROOT_VARIABLE, HOST_VARIABLE = "FAKE_WEBUI_ROOT", "FAKE_WEBUI_HOST"


class FakeWebui:
    """The running fake.

    Attributes:
        host: which webui it is like.
        root: its folder; nothing is written elsewhere.
    """

    def __init__(self, host: str, root: Path) -> None:
        self.host, self.root = host, root

    def module(self, name: str) -> Any:
        """One of its modules, such as ``"shared"`` for ``modules.shared``."""
        return importlib.import_module(f"modules.{name}")

    @property
    def shared(self) -> Any:
        """``modules.shared``, with ``opts`` and ``cmd_opts``."""
        return self.module("shared")

    @property
    def folder(self) -> Path:
        """Where it keeps hypernetworks unless told otherwise."""
        return self.root / "models" / "hypernetworks"

    def load_xyz(self) -> ModuleType:
        """Load the X/Y/Z script as hosts load scripts: under a bare file name, and not into
        ``sys.modules``."""
        path = HERE / "scripts" / "xyz_grid.py"
        specification = importlib.util.spec_from_file_location(path.name, path)
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        scripts = self.module("scripts")
        scripts.scripts_data.append(
            scripts.ScriptClassData(module.Script, str(path), str(HERE), module)
        )
        return module


@contextlib.contextmanager
def installed(root: Path, host: str = "a1111") -> Iterator[FakeWebui]:
    """Make ``import modules`` mean the fake, in its folder, where each webui's launcher goes;
    afterwards nothing of it is left in ``sys.path`` or ``sys.modules``."""
    assert host in HOSTS
    assert not any(name.split(".")[0] == "modules" for name in sys.modules), (
        "another webui is imported"
    )
    before = {name: os.environ.get(name) for name in (ROOT_VARIABLE, HOST_VARIABLE)}
    os.environ.update({ROOT_VARIABLE: str(root), HOST_VARIABLE: host})
    root.mkdir(parents=True, exist_ok=True)
    started_in = Path.cwd()
    os.chdir(root)
    sys.path.insert(0, str(HERE))
    importlib.invalidate_caches()
    if host in ("classic", "sdnext"):
        sys.modules["modules.hypernetworks"] = None  # type: ignore[assignment]
    try:
        yield FakeWebui(host, root)
    finally:
        os.chdir(started_in)
        sys.path.remove(str(HERE))
        for name in [name for name in sys.modules if name.split(".")[0] == "modules"]:
            del sys.modules[name]
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
