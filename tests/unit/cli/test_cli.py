"""The command line: what a person types, what comes out, and what goes wrong politely."""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import hypernetworks as hn
from hypernetworks.cli import _parser, main


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network's file, which no test changes."""
    torch.manual_seed(0)
    network = hn.Hypernetwork.create("waterElemental", hn.Structure((1, 2, 1), "relu"), (320, 768))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    path = tmp_path_factory.mktemp("written") / "waterElemental.pt"
    hn.write(network, path)
    return path


@pytest.fixture
def network_file(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(written, tmp_path))


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must end with code 2 and one line on stderr; returns the line."""
    try:
        code = main([str(a) for a in arguments])
    except SystemExit as error:
        code = int(error.code or 0)
    output = capsys.readouterr()
    assert code == 2
    assert len(output.err.strip().splitlines()) == 1
    assert "Traceback" not in output.err
    return output.err


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (
            "train cat --steps 2 x y",
            {"name": "cat", "pictures": [Path("x"), Path("y")], "steps": 2},
        ),
        ("train cat x --flip y", {"name": "cat", "pictures": [Path("x"), Path("y")], "flip": True}),
        ("train --steps 2 cat x", {"name": "cat", "pictures": [Path("x")]}),
        ("convert a b --overwrite out", {"sources": [Path("a"), Path("b")], "target": Path("out")}),
        ("merge a -o out.pt b:0.5", {"networks": ["a", "b:0.5"]}),
        ("bake m -o out a --overwrite b", {"checkpoint": Path("m"), "networks": ["a", "b"]}),
        ("inspect a --json b", {"files": [Path("a"), Path("b")], "json": True}),
        ("list a --json b", {"folders": [Path("a"), Path("b")]}),
        ("extract --difference a --overwrite", None),
        ("train cat --steps 2 x --bogus", None),
    ],
)
def test_names_may_stand_between_options(
    typed: str, expected: dict[str, Any] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if expected is None:
        with pytest.raises(SystemExit):
            _parser().parse_args(typed.split())
        assert len(capsys.readouterr().err.splitlines()) == 1
        return
    options = _parser().parse_args(typed.split())
    assert {name: getattr(options, name) for name in expected} == expected


def test_behind_two_dashes_everything_is_a_name() -> None:
    options = _parser().parse_args(["train", "--steps", "2", "--", "cat", "-x"])
    assert (options.name, options.pictures) == ("cat", [Path("-x")])


def test_without_a_command_it_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    output = capsys.readouterr()
    assert "COMMAND" in output.out
    assert all(name in output.out for name in ("generate", "inspect", "convert", "train", "studio"))
    assert output.err == ""


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert not stop.value.code
    assert capsys.readouterr().out == f"hypernetworks {hn.__version__}\n"


def test_a_shell_is_told_what_could_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With argcomplete, which ends the process; without it nothing happens."""
    asked: list[argparse.ArgumentParser] = []
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    assert main([]) == 0
    monkeypatch.setitem(sys.modules, "argcomplete", SimpleNamespace(autocomplete=asked.append))
    assert main([]) == 0
    assert "generate" in asked[0].format_help()


def test_inspect_tells_what_is_in_a_file(
    network_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(network_file)]) == 0
    report = capsys.readouterr().out
    for part in ("SD1", "320, 768", "1, 2, 1", "relu", "float32", "768 keys"):
        assert part in report


def test_inspect_as_json_has_the_same_facts(
    network_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", "--json", str(network_file)]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["widths"] == [320, 768]
    assert report["family"] == "SD1"
    assert report["bytes"] == network_file.stat().st_size
    assert report["parameters"] == sum(p.numel() for p in hn.read(network_file).parameters())


def test_inspect_warns_of_what_is_unusual(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = hn.Hypernetwork.create("odd", hn.Structure((1, 1, 1), "softmax"), (96,))
    next(network.parameters()).data[0, 0] = float("nan")
    hn.write(network, tmp_path / "odd.pt")
    assert main(["inspect", str(tmp_path / "odd.pt")]) == 0
    report = capsys.readouterr().out
    for part in ("NaN", "zeros", "batch", "none of these"):
        assert part in report


def test_inspect_goes_on_after_a_bad_file(
    network_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(network_file.parent / "none.pt"), str(network_file)]) == 2
    output = capsys.readouterr()
    assert "no such file" in output.err
    assert "waterElemental" in output.out


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_convert_keeps_everything(network_file: Path, suffix: str) -> None:
    target = network_file.with_name(f"other{suffix}")
    assert main(["convert", str(network_file), str(target)]) == 0
    before, after = hn.read(network_file), hn.read(target)
    assert (before.structure, before.provenance) == (after.structure, after.provenance)
    context = torch.randn(1, 4, 768)
    assert all(
        torch.equal(a, b)
        for a, b in zip(before.transform(context), after.transform(context), strict=True)
    )


@pytest.mark.parametrize("source", ["", "*.pt", "*"])
@pytest.mark.parametrize("exists", [True, False])
def test_convert_takes_folders_and_patterns(
    network_file: Path, source: str, exists: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, target = network_file.parent, network_file.parent.with_suffix(".made")
    (folder / "sub").mkdir()
    hn.write(hn.read(network_file), folder / "sub" / "other.pt")
    if exists:
        target.mkdir()
    assert main(["convert", str(folder / source) if source else str(folder), str(target)]) == 0
    written = {path.relative_to(target).as_posix() for path in target.rglob("*.*")}
    name = f"{network_file.stem}.safetensors"
    assert written == ({name} if source == "*.pt" else {name, "sub/other.safetensors"})
    assert hn.read(target / name).widths == (320, 768)

    kept = (target / name).read_bytes()
    assert "--overwrite" in refused(capsys, "convert", network_file, target)
    assert (target / name).read_bytes() == kept
    assert main(["convert", "--overwrite", str(network_file), str(target), "--format", "pt"]) == 0
    assert (target / f"{network_file.stem}.pt").is_file()


def test_convert_goes_on_after_a_bad_file(
    network_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, target = network_file.with_name("bad.pt"), network_file.with_name("converted")
    bad.write_bytes(b"no network")
    assert main(["convert", str(bad), str(network_file), str(target)]) == 2
    assert [path.stem for path in target.iterdir()] == [network_file.stem]
    assert "bad.pt" in capsys.readouterr().err


def test_convert_says_where_several_files_can_go(
    network_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, folder = network_file, network_file.parent
    assert "folder" in refused(capsys, "convert", one, one, folder / "x.safetensors")
    (folder / "sub").mkdir()
    twin = folder / "sub" / one.name
    hn.write(hn.read(one), twin)
    assert "both" in refused(capsys, "convert", one, twin, folder / "made")
    assert "no file matches" in refused(capsys, "convert", folder / "*.ckpt", folder / "made")
    assert not (folder / "made").exists()


def test_convert_overwrites_only_when_told(
    network_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = network_file.read_bytes()
    assert "--overwrite" in refused(capsys, "convert", network_file, network_file)
    assert network_file.read_bytes() == before
    assert main(["convert", "--overwrite", str(network_file), str(network_file)]) == 0
    assert hn.read(network_file).widths == (320, 768)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["inspect", "none.pt"], "no such file"),
        (["inspect", "."], "folder"),
        (["convert", "none.pt", "x.safetensors"], "no such file"),
        (["generate", "a cat", "--steps", "0"], "from 1"),
        (["generate", "a cat", "--steps", "x"], "whole number"),
        (["generate", "a cat", "--size", "big"], "512x768"),
        (["generate", "a cat", "--cfg", "nan"], "number"),
        (["generate", "a cat", "-o", "picture.jpg"], ".png"),
        (["generate", "a cat", "-o", "none/picture.png"], "existing folder"),
        (["generate", "a cat", "--hypernetworks", "none"], "no such folder"),
        (["generate", "a cat", "--checkpoint", "none.safetensors"], "none.safetensors"),
        (["generate", "a cat", "--device", "nonsense"], "device nonsense"),
        # These two ask the model, which imports diffusers.
        pytest.param(["generate", "a cat", "--size", "13"], "multiples of", marks=pytest.mark.slow),
        pytest.param(["generate", "a cat", "--sampler", "Eule"], "Euler a", marks=pytest.mark.slow),
        (["generate"], "required"),
        (["dance"], "dance"),
    ],
)
def test_what_is_unusable_gets_one_line_and_code_2(
    arguments: list[str],
    part: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert part in refused(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


LONG = "n" * 300
"""A name that no file system takes: the system refuses even to look for it."""


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", f"{LONG}.pt"],
        ["inspect", f"{LONG}*.pt"],
        ["list", LONG],
        ["convert", f"{LONG}.pt", "new.pt"],
        ["convert", "waterElemental.pt", f"{LONG}.pt"],
        ["convert", "waterElemental.pt", LONG],
        ["convert", "--to", "lora", "--base", "miniature", f"{LONG}.pt", "new.safetensors"],
        ["merge", f"{LONG}.pt:0.5", "waterElemental.pt", "-o", "new.pt"],
        ["merge", "waterElemental.pt", "-o", f"{LONG}.pt"],
        ["resize", f"{LONG}.pt", "--hidden", "1", "-o", "new.pt"],
        ["bake", f"{LONG}.safetensors", "waterElemental.pt", "-o", "new.safetensors"],
        ["bake", "none.safetensors", "waterElemental.pt", "-o", f"{LONG}.safetensors"],
        ["extract", "--from-lora", "none", "--base", f"{LONG}.safetensors", "-o", "new.pt"],
        ["extract", "--from-checkpoints", LONG, LONG, "-o", "new.pt"],
        pytest.param(["train", "ink", LONG], marks=pytest.mark.slow),
        ["generate", "a cat", "-o", f"{LONG}.png"],
        ["generate", "a cat", "-o", f"{LONG}/new.png"],
        ["generate", "a cat", "--checkpoint", f"{LONG}.safetensors"],
        ["generate", "a cat", "--hypernetworks", LONG],
        ["compare", "a cat", "--x", "seed=1-2", "-o", f"{LONG}.html"],
        ["studio", "--no-browser", "--hypernetworks", LONG],
    ],
)
def test_a_path_that_the_system_refuses_gets_one_line_and_code_2(
    arguments: list[str],
    network_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(network_file.parent)
    assert LONG in refused(capsys, *arguments)
    assert [path.name for path in network_file.parent.iterdir()] == [network_file.name]


def test_a_folder_without_permission_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", forbidden)
    said = refused(capsys, "list", "secret")
    assert said == "hypernetworks: secret: Permission denied\n"
    monkeypatch.setattr(Path, "is_dir", lambda _: (_ for _ in ()).throw(OSError("two\nlines")))
    assert refused(capsys, "list", "secret") == "hypernetworks: two lines\n"


def test_inspect_goes_on_after_a_path_that_the_system_refuses(
    network_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", f"{LONG}.pt", str(network_file)]) == 2
    assert "waterElemental" in capsys.readouterr().out


def test_a_multiplier_may_make_the_text_longer_than_a_name(
    network_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hypernetworks.cli.to_lora import read_weighted
    from hypernetworks.engine.multiplier import Multiplier

    monkeypatch.chdir(network_file.parent)
    long = network_file.rename(f"{'n' * 250}.pt")
    assert read_weighted(f"{long.name}:0.75").multiplier == Multiplier.parse("0.75")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_output_to_a_full_disk_gets_one_line_and_code_2(network_file: Path) -> None:
    line = [sys.executable, "-m", "hypernetworks", "list", str(network_file.parent)]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert "No space left on device: delete or move some files" in ended.stderr


def test_convert_to_an_unknown_suffix(
    network_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ".safetensors" in refused(
        capsys, "convert", network_file, network_file.with_suffix(".onnx")
    )


def test_generate_makes_a_picture_with_its_infotext(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    target = tmp_path / "apple.png"
    prompt = "a red apple on blue <hypernet:ink:0.8> <hypernet:nobody:1>"
    assert main(["generate", prompt, "-o", str(target), "--steps", "2", "--seed", "5"]) == 0
    output = capsys.readouterr()
    assert "nobody" in output.err
    assert output.out.strip() == str(target)
    with Image.open(target) as picture:
        assert picture.size == (96, 96)
        assert picture.info["parameters"].startswith(f"{prompt}\nSteps: 2")
        assert "ink: " in picture.info["parameters"]


def test_an_interrupted_generate_keeps_what_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    from hypernetworks.cli import generate
    from hypernetworks.hosts.diffusers import Generation, Picture, Result

    def stopped(job: Generation, on_step: Any) -> Result:
        assert on_step(1, job.steps)
        signal.raise_signal(signal.SIGINT)
        assert not on_step(2, job.steps)
        return Result([Picture(Image.new("RGB", (8, 8)), "a cat")])

    painter = SimpleNamespace(generate=stopped)
    monkeypatch.setattr(generate, "load_painter", lambda _options: painter)
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "a cat", "--steps", "9"]) == 130
    output = capsys.readouterr()
    assert output.out.strip() == str(tmp_path.resolve() / "picture.png")
    assert "unfinished image is saved" in output.err
    assert (tmp_path / "picture.png").is_file()


@pytest.mark.parametrize(
    "options", [[], ["--image", "first.png", "--strength", "0.5"], ["--hires", "2"]]
)
def test_generate_counts_the_steps_that_the_sampler_takes(
    options: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Heun asks the model twice for each step but the last."""
    from PIL import Image

    Image.new("RGB", (96, 96)).save(tmp_path / "first.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert main(["generate", "a cat", "--steps", "4", "--sampler", "Heun", *options]) == 0
    shown = capsys.readouterr().err
    counts = [(int(a), int(b)) for a, b in re.findall(r"\] (\d+)/(\d+) ", shown)]
    assert counts[-1][0] == counts[-1][1] > 2
    assert all(done <= total for done, total in counts)
    assert "-" not in shown.partition("generating")[2]


def test_list_says_what_tags_can_name(
    network_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (network_file.parent / "broken.pt").write_bytes(b"nothing")
    assert main(["list", str(network_file.parent)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert "can't be used" in next(line for line in lines if line.startswith("broken"))
    good = next(line for line in lines if line.startswith(network_file.stem))
    assert good.endswith(str(network_file.resolve()))
    (network_file.parent / "broken.pt").unlink()
    assert main(["list", str(network_file.parent), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == network_file.stem
    assert "no such folder" in refused(capsys, "list", network_file.parent / "none")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' names are text")
def test_list_names_what_it_leaves_out(
    network_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = os.fsdecode(os.fsencode(network_file.parent) + b"/caf\xe9.pt")
    shutil.copy(network_file, odd)
    assert main(["list", str(network_file.parent)]) == 0
    output = capsys.readouterr()
    assert "caf" not in output.out
    assert "Rename it" in output.err
    Path(odd).unlink()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("command", ["list", "inspect", "convert"])
def test_names_of_files_dont_reach_the_terminal_as_they_are(
    command: str, network_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    network_file.rename(folder / "mo\x1b[31mod\ncan't be used.pt")
    (folder / "bro\x1b[31m\nken.pt").write_bytes(b"nothing")
    out = [str(tmp_path / "out")] if command == "convert" else []
    assert main([command, str(folder), *out]) == 2
    output = capsys.readouterr()
    lines = [line for line in (output.out + output.err).splitlines() if line.strip()]
    assert all(line.isprintable() for line in lines)
    assert any("mo?[31mod?can't be used" in line for line in lines)
    assert not any(line.startswith(("can't", "ken")) for line in lines)


@pytest.mark.parametrize("name", ["new", "new.pt"])
def test_create_takes_the_name_of_the_file_too(name: str, tmp_path: Path) -> None:
    assert main(["create", name, "--widths", "8", "--folder", str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["new.pt"]


def test_seed_minus_one_is_a_random_one() -> None:
    from hypernetworks.cli.settings import _seed

    drawn = {_seed("-1") for _ in range(3)}
    assert len(drawn) > 1
    assert min(drawn) >= 0
    assert _seed("7") == 7


@pytest.mark.parametrize("source", ["", "*.pt"])
def test_inspect_takes_folders_and_patterns(
    network_file: Path, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(network_file.parent / source)]) == 0
    assert "320, 768" in capsys.readouterr().out
    assert "no file matches" in refused(capsys, "inspect", network_file.parent / "none*.pt")


@pytest.mark.parametrize("name", ["Swish", "swish", "ReLU"])
def test_activations_are_named_in_any_case(name: str, tmp_path: Path) -> None:
    line = ["create", "new", "--widths", "8", "--activation", name, "--folder", str(tmp_path)]
    assert main(line) == 0
    assert hn.read(tmp_path / "new.pt").structure.activation == name.lower()


def test_generate_overwrites_only_when_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "apple.png"
    target.write_bytes(b"mine")
    assert "--overwrite" in refused(capsys, "generate", "an apple", "-o", target)
    assert target.read_bytes() == b"mine"


def test_generate_numbers_the_pictures_of_a_batch(tmp_path: Path) -> None:
    target = tmp_path / "apple.png"
    assert main(["generate", "a red apple", "-o", str(target), "--steps", "1", "--batch", "2"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["apple-1.png", "apple-2.png"]


def test_the_studio_says_when_its_port_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "--port" in refused(
            capsys, "studio", "--no-browser", "--port", taken.getsockname()[1]
        )


@pytest.mark.parametrize(
    ("number", "part"),
    [
        (errno.EADDRINUSE, "port 80 is in use: choose another with --port"),
        (errno.EACCES, "no permission to listen on port 80"),
        (errno.EADDRNOTAVAIL, "no address 127.0.0.1"),
        (errno.ENOBUFS, "port 80 can't be used (out of something): choose another"),
    ],
)
def test_the_studio_says_why_it_cannot_listen(
    number: int, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    from hypernetworks.studio.web import server

    class Socket(socket.socket):
        def bind(self, _: object) -> None:
            raise OSError(number, "out of something")

    monkeypatch.setattr(socket, "socket", Socket)
    with pytest.raises(hn.HypernetworkError) as refusal:
        server._listen("127.0.0.1", 80)
    assert part in str(refusal.value)


def test_the_studio_says_what_listening_means(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import uvicorn

    from hypernetworks.studio.web import server

    hosts: list[str] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_a, **_k: None)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # launch changes it: what was there comes back
    monkeypatch.setattr(server, "build_app", lambda *_a, **_k: None)
    original = server._listen
    monkeypatch.setattr(
        server, "_listen", lambda host, _port: (hosts.append(host), original("127.0.0.1", 0))[1]
    )
    monkeypatch.delenv("HYPERNETWORKS_PASSWORD", raising=False)
    for options in (
        [],
        ["--listen"],
        ["--listen", "--password", "open sesame"],
        ["--listen", "--no-password"],
    ):
        assert main(["studio", "--no-browser", *options]) == 0
    assert hosts == ["127.0.0.1", "0.0.0.0", "0.0.0.0", "0.0.0.0"]
    own, made_up, given, none = capsys.readouterr().out.split("Hypernetworks studio")[1:]
    assert "this machine only" in own
    assert re.search(r"Password: \w{4}-\w{4}-\w{4}\n", made_up)
    assert "Password: open sesame\n" in given
    assert "no password" in none
    assert "empty" in refused(capsys, "studio", "--password", "")
