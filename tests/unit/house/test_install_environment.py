"""Setting up heals itself, and the user's settings of Python and pip stay outside."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hypernetworks.installing import command, environment, machine, packages, surroundings, wheels
from hypernetworks.installing.environment import SetUpError

ROOT = Path(__file__).parents[3]
POSIX = pytest.mark.skipif(os.name == "nt", reason="POSIX only")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder of its own; the real one's environment is never touched."""
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    for module in (environment, packages):
        monkeypatch.setattr(module, "ROOT", tmp_path)
        monkeypatch.setattr(module, "ENVIRONMENT", tmp_path / ".venv")
    return tmp_path


def make_environment(folder: Path, *options: str) -> None:
    subprocess.run([sys.executable, "-m", "venv", *options, str(folder / ".venv")], check=True)


def break_python(venv: Path) -> None:
    """The Python it was made from is gone."""
    (venv / "bin" / "python").unlink()
    (venv / "bin" / "python").symlink_to("/nowhere/python3")


def break_start(venv: Path) -> None:
    """A Python that ends at once: of another architecture, or without its libraries."""
    (venv / "bin" / "python").unlink()
    (venv / "bin" / "python").write_text("#!/bin/sh\nexit 127\n")
    (venv / "bin" / "python").chmod(0o755)


def break_format(venv: Path) -> None:
    """A file that no system can start."""
    (venv / "bin" / "python").unlink()
    (venv / "bin" / "python").write_bytes(b"\0\0")
    (venv / "bin" / "python").chmod(0o755)


def break_configuration(venv: Path) -> None:
    """Interrupted before ``pyvenv.cfg``: Python starts, but as the base, into which nothing may be
    installed.
    """
    (venv / "pyvenv.cfg").unlink()


def break_everything(venv: Path) -> None:
    """Interrupted at once: a folder with nothing in it."""
    shutil.rmtree(venv)
    venv.mkdir()


def break_kind(venv: Path) -> None:
    """A file where the folder should be."""
    shutil.rmtree(venv)
    venv.touch()


@POSIX
@pytest.mark.parametrize(
    "harm",
    [break_python, break_start, break_format, break_configuration, break_everything, break_kind],
)
def test_a_broken_environment_is_made_again(
    project: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], None]
) -> None:
    make_environment(project, "--without-pip")
    harm(project / ".venv")
    monkeypatch.setattr(environment, "create", lambda: make_environment(project, "--without-pip"))
    monkeypatch.setattr(
        environment, "_has_pip", lambda: True
    )  # installing it takes most of the time
    environment.make()
    assert environment.version() == sys.version_info[:2]


@POSIX
@pytest.mark.slow
def test_an_environment_without_pip_gets_it(project: Path) -> None:
    """uv's environments, or an interrupted set-up."""
    make_environment(project, "--without-pip")
    (project / ".venv" / "kept").touch()
    environment.make()
    assert environment.ask("import pip") is not None
    assert (project / ".venv" / "kept").exists()


def test_a_link_is_never_followed_when_something_is_removed(project: Path, tmp_path: Path) -> None:
    others = tmp_path / "somebody's"
    others.mkdir()
    (others / "file").touch()
    (project / ".venv").symlink_to(others)
    with pytest.raises(SetUpError, match="link"):
        environment.make()
    assert (others / "file").exists()


@POSIX
@pytest.mark.slow
def test_two_at_once_make_one(project: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from hypernetworks.installing import environment "
        "as e\n"
        "e.ROOT = Path(sys.argv[1]); e.ENVIRONMENT = e.ROOT / '.venv'\n"
        "with e.alone():\n    e.make(); print('broken' if e.version() is None else 'made')"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(project)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert all(output.endswith("made\n") for output in outputs)
    assert sum("waiting for it" in output for output in outputs) == 1
    assert not any("again" in output for output in outputs)


def test_a_finished_set_up_is_not_repeated(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / ".venv").mkdir()
    packages.mark("test").write_text(packages.stamp("test"))
    monkeypatch.setattr(environment, "ask", lambda _: "True")  # it starts, and all is there
    monkeypatch.setattr(environment, "make", None)  # any attempt to do something would fail
    monkeypatch.setattr(environment, "check_folder", None)
    command.prepare("test", None)
    command.prepare("studio", None)


@pytest.mark.parametrize("answer", [None, "False"])
def test_a_finished_set_up_of_which_something_is_gone_is(
    project: Path, monkeypatch: pytest.MonkeyPatch, answer: str | None
) -> None:
    (project / ".venv").mkdir()
    packages.mark("test").write_text(packages.stamp("test"))
    monkeypatch.setattr(environment, "ask", lambda _: answer)
    assert not packages.ready("test")


def test_an_index_is_installed_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / ".venv").mkdir()
    monkeypatch.setattr(packages, "working_torch", lambda: "torch 2.13.0+cu130 cuda A card")
    assert packages.has(None)
    assert packages.has("cu130")
    assert not packages.has("cpu")
    assert not packages.has("https://mirror.example/simple")
    (project / ".venv" / ".torch").write_text("https://mirror.example/simple")
    assert packages.has("https://mirror.example/simple")


class Steps:
    """Stands in for pip, and says which torch works after each of its runs."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *torches: str | None, fails: str = "-"
    ) -> None:
        self.lines: list[str] = []
        self.torches = list(torches)
        self.fails = fails
        self.constraints = ""
        monkeypatch.setattr(packages, "working_torch", self.torch)
        monkeypatch.setattr(packages, "_pip", self.pip)
        monkeypatch.setattr(packages, "reachable", lambda _: True)
        monkeypatch.setattr(environment, "check_space", lambda _: None)
        monkeypatch.setattr(environment, "version", lambda: (3, 12))

    def torch(self) -> str | None:
        return self.torches.pop(0) if len(self.torches) > 1 else self.torches[0]

    def pip(self, *arguments: str, command: str = "install", check: bool = True) -> int:
        if "-c" in arguments:
            self.constraints = Path(arguments[1]).read_text()
            arguments = arguments[2:]
        self.lines.append(" ".join([command, *arguments]))
        return int(self.fails in self.lines[-1])


NVIDIA = wheels.Machine("Windows", "x86_64", driver=580, capabilities=((8, 9),))
EVERYTHING = "install -e .[studio]"
CUDA = "torch 2.4.1+cu121 cuda A card"


@pytest.fixture
def card(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / ".venv").mkdir()
    monkeypatch.setattr(machine, "describe", lambda _=None: NVIDIA)


@pytest.mark.usefixtures("card")
def test_a_torch_that_works_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(monkeypatch, CUDA)
    packages.install("studio", None)
    assert steps.lines == [EVERYTHING]
    assert "torch==2.4.1+cu121" in steps.constraints.splitlines()
    assert "2.13.0" not in steps.constraints
    assert "gradio==" in steps.constraints


@pytest.mark.usefixtures("card")
def test_a_new_one_fits_the_card(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = Steps(monkeypatch, None, "torch 2.13.0+cu130 cuda NVIDIA GeForce RTX 4090")
    packages.install("studio", None)
    assert steps.lines[0] == (
        "install torch==2.13.0 --index-url https://download.pytorch.org/whl/cu130"
    )
    said = capsys.readouterr().out
    assert "uses NVIDIA GeForce RTX 4090 (cuda)" in said
    assert "seconds" in said


@pytest.mark.usefixtures("card")
def test_where_pytorchs_server_fails_pypis_is_taken_and_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = Steps(monkeypatch, None, "torch 2.13.0+cpu cpu the CPU", fails="--index-url")
    packages.install("studio", None)
    assert steps.lines[1:] == ["install torch==2.13.0", EVERYTHING]
    said = capsys.readouterr()
    assert "installing torch from PyPI instead" in said.out
    assert "--torch cu130" in said.err  # how to get the card used


@pytest.mark.usefixtures("card")
def test_a_build_that_is_asked_for_replaces(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(monkeypatch, CUDA, CUDA, "torch 2.13.0+cpu cpu the CPU")
    packages.install("studio", "cpu")
    assert steps.lines[:2] == [
        "uninstall torch",
        "install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu",
    ]


def test_torch_is_asked_for_by_option_or_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert command.split(["--torch", "cpu", "--port", "1"]) == ("cpu", ["--port", "1"])
    assert command.split(["--torch=cu126", "-k", "x"]) == ("cu126", ["-k", "x"])
    monkeypatch.setenv("HYPERNETWORKS_TORCH", "rocm")
    assert command.split(["x"]) == ("rocm", ["x"])
    assert command.split(["--torch", "cpu"]) == ("cpu", [])
    with pytest.raises(SetUpError, match="cu130"):
        command.split(["--torch", "cuda"])
    with pytest.raises(SetUpError, match="cu130"):
        command.split(["--torch"])


def test_paths_are_those_of_the_users_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """pip runs in the project's; a name without a slash may be a folder, too."""
    (tmp_path / "wheels").mkdir()
    wheel = tmp_path / "torch-2.13.0-cp312-cp312-win_amd64.whl"
    wheel.touch()
    monkeypatch.chdir(tmp_path)
    for typed in ("wheels", "./wheels", str(tmp_path / "wheels")):
        assert command.split(["--torch", typed])[0] == str(tmp_path / "wheels")
    assert command.split([f"--torch={wheel.name}"])[0] == str(wheel)
    assert command.split(["--torch", "CU126"])[0] == "cu126"
    assert command.split(["--torch", "https://mirror.example/simple"])[0] == (
        "https://mirror.example/simple"
    )
    with pytest.raises(SetUpError, match="--torch takes"):
        command.split(["--torch", ""])
    for typed in ("other.whl", "./nothing", "..\\nothing"):
        with pytest.raises(SetUpError, match="there is no file or folder"):
            command.split(["--torch", typed])


def test_the_users_settings_stay_outside_and_proxies_come_in() -> None:
    user = {
        "PATH": "/bin",
        "PIP_USER": "1",
        "PIP_TARGET": "/tmp/x",
        "PIP_PREFIX": "/tmp/x",
        "PIP_DRY_RUN": "1",
        "PYTHONPATH": "/other",
        "PYTHONHOME": "/other",
        "CONDA_PREFIX": "/conda",
        "HTTPS_PROXY": "http://proxy:3128",
        "PIP_INDEX_URL": "https://mirror.example/simple",
    }
    cleaned = surroundings.clean(user)
    assert cleaned["PIP_USER"] == "0"
    assert not {"PIP_TARGET", "PIP_PREFIX", "PIP_DRY_RUN", "PYTHONPATH", "PYTHONHOME"} & set(
        cleaned
    )
    for name in ("PATH", "HTTPS_PROXY", "PIP_INDEX_URL", "CONDA_PREFIX"):
        assert cleaned[name] == user[name]


@pytest.mark.parametrize("line", ["target = /tmp/x", "prefix = /tmp/x", "user = true"])
def test_a_pip_conf_that_installs_elsewhere_is_left_out_but_its_other_lines_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    settings = f"[global]\nindex-url = https://mirror.example/simple\n[install]\n{line}\n"
    (tmp_path / "pip.conf").write_text(settings)
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    variables = surroundings.for_pip(
        sys.executable, {**os.environ, "PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}
    )
    assert variables["PIP_CONFIG_FILE"] == os.devnull
    assert variables["PIP_INDEX_URL"] == "https://mirror.example/simple"
    assert not {"PIP_TARGET", "PIP_PREFIX"} & set(variables)


def test_the_debian_hint_stands_only_where_ensurepip_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment.check_venv_module()  # nothing missing, nothing said
    monkeypatch.setattr(environment, "find_spec", lambda name: None if name == "ensurepip" else 1)
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/apt-get")
    with pytest.raises(SetUpError, match=r"no ensurepip: .*apt install python3\.\d+-venv"):
        environment.check_venv_module()
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(SetUpError) as told:
        environment.check_venv_module()
    assert "apt" not in str(told.value)


def test_a_colon_in_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(environment, "ROOT", tmp_path / f"a{os.pathsep}b")
    with pytest.raises(SetUpError, match="move or rename"):
        environment.check_folder()


def test_a_read_only_folder(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system", str(path))

    environment.check_folder()
    assert sorted(p.name for p in project.iterdir()) == ["constraints.txt", "pyproject.toml"]
    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(SetUpError, match="isn't writable"):
        environment.check_folder()


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 2**20))  # type: ignore[attr-defined]
    with pytest.raises(SetUpError, match="make room"):
        environment.check_space(3)
    assert "is full (1 MiB free)" in environment.true_reason()


def test_a_failed_step_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "prepare", fails)
    assert command.main(["studio"]) == 2
    assert "No space left on device" in capsys.readouterr().err
