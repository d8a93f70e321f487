"""The report on a network: the command line, the studio and webuis show the same table."""

from __future__ import annotations

from html import unescape
from pathlib import Path

import pytest
import torch
from fake_webui import FakeWebui
from webui_cards import write_network

import hypernetworks as hn
from hypernetworks.cli import main
from hypernetworks.engine.network import Provenance
from hypernetworks.hosts.webui import folders
from hypernetworks.hosts.webui.cards_tab.cards import describe
from hypernetworks.library import inspect, norm_rows, report_rows


def on_the_command_line(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["inspect", str(path)]) == 0
    return capsys.readouterr().out


def in_the_studio(path: Path) -> str:
    from hypernetworks.studio.inspecting import report

    return unescape(report(path.stem, hn.Library([path.parent])))


@pytest.fixture
def path(fake_webui: FakeWebui) -> Path:
    torch.manual_seed(0)
    write_network(
        fake_webui.folder / "ink.pt",
        step=1234,
        checkpoint_name="v1-5",
        checkpoint_hash="6ce0161689",
    )
    folders.refresh()
    return fake_webui.folder / "ink.pt"


def test_all_three_show_the_same_rows(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gradio")
    rows = report_rows(inspect(hn.read(path), path))
    assert rows["Model family"] == "SD1"
    assert rows["Trained"] == "1,234 steps on v1-5 [6ce0161689]"
    shown = on_the_command_line(path, capsys)
    studio = in_the_studio(path)
    described = describe(folders.library().find("ink"))
    for label, text in rows.items():
        assert any(line.split(label)[-1].strip() == text for line in shown.splitlines()), label
        assert f'<th scope="row">{label}</th><td>{text}</td>' in studio
        assert described[label] == text


def test_norms_and_warnings_of_the_three(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gradio")
    network = hn.read(path)
    for parameter in network.pairs[4][0].parameters():
        parameter.data.zero_()
    hn.write(network, path)
    folders.refresh()
    found = inspect(network, path)
    shown, studio = on_the_command_line(path, capsys), in_the_studio(path)
    described = describe(folders.library().find("ink"))
    assert set(norm_rows(found)) == {"4 keys", "4 values", "768 keys", "768 values"}
    for label, norms in norm_rows(found).items():
        assert f"{label:<11}  {'  '.join(norms)}" in shown
        assert described["Norms"][label] == ", ".join(norms)
        assert all(f">{norm}</text>" in studio for norm in norms)
    (warning,) = found.warnings
    assert warning in shown
    assert described["Warnings"] == {"1": warning}
    assert warning[1:] in studio


@pytest.mark.parametrize(
    ("provenance", "expected"),
    [
        (Provenance(), "0 steps on an unknown checkpoint"),
        (Provenance(step=5, checkpoint_hash="abc"), "5 steps on abc"),
        (Provenance(step=5, checkpoint_name="v1-5"), "5 steps on v1-5"),
    ],
)
def test_what_it_was_trained_on(tmp_path: Path, provenance: Provenance, expected: str) -> None:
    network = hn.Hypernetwork.create("x", hn.Structure((1, 1, 1), "linear"), (4,))
    network.provenance = provenance
    assert report_rows(inspect(network, tmp_path))["Trained"] == expected


def test_a_file_can_not_write_to_the_terminal(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = hn.read(path)
    network.provenance = Provenance(name="\x1b[2Jgone\nWarning: none")
    hn.write(network, path)
    shown = on_the_command_line(path, capsys)
    assert "\x1b" not in shown
    assert "?[2Jgone?Warning: none" in shown
