"""``install.py`` as a webui runs it: silent, quick, and touching nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def install(
    folder: Path, *arguments: str, flags: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *flags, "install.py", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_webui_hears_and_sees_nothing(tmp_path: Path) -> None:
    shutil.copy(ROOT / "install.py", tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = install(tmp_path, PYTHONPATH=str(tmp_path), PYTHONDONTWRITEBYTECODE="1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_missing_is_named_and_nothing_is_installed(tmp_path: Path) -> None:
    shutil.copy(ROOT / "install.py", tmp_path)
    done = install(
        tmp_path, flags=("-S",), PYTHONPATH=""
    )  # no site-packages: everything is missing
    assert done.returncode == 0
    assert "safetensors" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert not (tmp_path / ".venv").exists()


def test_an_unknown_task_is_explained(tmp_path: Path) -> None:
    shutil.copy(ROOT / "install.py", tmp_path)
    done = install(tmp_path, "dance")
    assert done.returncode == 2
    assert "install.py studio" in done.stdout


def test_it_imports_only_the_standard_library() -> None:
    import ast

    tree = ast.parse((ROOT / "install.py").read_text(encoding="utf-8"))
    names = {
        a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names
    }
    names |= {str(n.module).split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert names <= set(sys.stdlib_module_names)


def test_a_finished_set_up_is_not_repeated(tmp_path: Path) -> None:
    for name in ("install.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    script = (
        "import install, pathlib; install.python().parent.mkdir(parents=True); install.python().touch();"
        "install.mark('test').write_text(install.stamp('test'));"
        "install.subprocess = None;"  # any attempt to run something would fail
        "install.prepare('test'); install.prepare('studio'); print('nothing was run')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "nothing was run", done.stderr
