"""``install.py`` as a webui runs it: silent, quick, and touching nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_an_unknown_task_is_explained() -> None:
    done = install(ROOT, "dance")
    assert done.returncode == 2
    assert "install.py studio" in done.stdout
    assert install(ROOT, "--help").returncode == 0


def test_version() -> None:
    import hypernetworks

    assert install(ROOT, "--version").stdout == f"hypernetworks {hypernetworks.__version__}\n"
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_a_webui_loads_nothing_of_what_a_person_needs(tmp_path: Path) -> None:
    shutil.copy(ROOT / "install.py", tmp_path)  # without the package beside it
    code = "import install, sys; install.main([]); print('hypernetworks' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_an_old_python_can_read_it() -> None:
    """Python 3.6 is as old as the parser can be asked for; that 2.7 reads it was tried by hand."""
    import ast

    source = (ROOT / "install.py").read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 6))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert functions
    assert not any(f.returns or any(a.annotation for a in f.args.args) for f in functions)
    assert not any(isinstance(node, (ast.JoinedStr, ast.AnnAssign)) for node in ast.walk(tree))


@pytest.mark.parametrize("old", ["python2.7", "python3.6", "python3.7", "python3.8", "python3.9"])
def test_an_old_python_is_told(old: str) -> None:
    program = shutil.which(old)
    if (
        program is None
        or subprocess.run([program, "-c", ""], check=False, capture_output=True).returncode
    ):
        pytest.skip(f"no {old} here")
    done = subprocess.run(
        [program, str(ROOT / "install.py"), "studio"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Python 3.10 to 3.14 is needed, this is ")


def test_it_imports_only_the_standard_library() -> None:
    import ast

    files = [ROOT / "install.py", *(ROOT / "hypernetworks" / "installing").glob("*.py")]
    nodes = [n for file in files for n in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    names = {a.name.split(".")[0] for n in nodes if isinstance(n, ast.Import) for a in n.names}
    names |= {
        str(n.module).split(".")[0] for n in nodes if isinstance(n, ast.ImportFrom) and not n.level
    }
    assert names - {"hypernetworks"} <= set(sys.stdlib_module_names)
