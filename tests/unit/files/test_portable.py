"""Types that a format can't hold, links, inference mode, and what is no network at all."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

import hypernetworks as hn
from hypernetworks.engine.network import Hypernetwork
from hypernetworks.engine.structure import Structure
from hypernetworks.errors import NotAHypernetworkError, UnsupportedVariantError

EIGHT_BITS = [
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
]


def network(dtype: torch.dtype = torch.float32) -> Hypernetwork:
    made = Hypernetwork.create("n", Structure((1.0, 1.0), dropout=(0.0, 0.0)), (8,))
    for parameter in made.parameters():
        parameter.data = torch.full(parameter.shape, 0.5).to(dtype)
    return made


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("dtype", EIGHT_BITS)
def test_eight_bits_are_kept_or_become_sixteen(
    dtype: torch.dtype, suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "hypernetworks"):
        hn.write(network(dtype), tmp_path / f"a{suffix}")
    back = hn.read(tmp_path / f"a{suffix}")
    kept = suffix == ".safetensors" and dtype in EIGHT_BITS[:2]
    assert back.dtype == (dtype if kept else torch.float16)
    assert bool(caplog.records) != kept
    assert all(bool((p.float() == 0.5).all()) for p in back.parameters())


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_read_in_inference_mode_it_can_be_trained(suffix: str, tmp_path: Path) -> None:
    hn.write(network(), tmp_path / f"a{suffix}")
    with torch.inference_mode():
        read = hn.read(tmp_path / f"a{suffix}")
    read.train()
    read.pairs[8][0](torch.ones(1, 2, 8)).sum().backward()
    assert not any(p.is_inference() for p in read.parameters())


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "a.pt", tmp_path / "a.pt"
    hn.write(network(torch.float16), target)
    try:
        link.symlink_to(target)
    except (OSError, NotImplementedError):
        pytest.skip("this system gives no links")
    hn.write(network(), link)
    assert link.is_symlink()
    assert hn.read(target).dtype == torch.float32


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1\n", "git lfs pull"),
        ("<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
        ("\n <html>", "web page"),
        ('{"error": "Invalid credentials"}', "logged in"),
        ('{"message": "not found"}', "logged in"),
        ("\0" * 600, "not finished"),
        ("7z\xbc\xaf\x27\x1c rest", "unpack it"),
        ("Rar!\x1a\x07", "unpack it"),
        ("\x1f\x8b\x08", "unpack it"),
        ("\x89PNG\r\n\x1a\n", "preview"),
        ("GGUF\x03", "not a hypernetwork"),
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_failed_downloads_are_named(content: str, words: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(NotAHypernetworkError, match=words):
        hn.read(path)


def test_a_header_as_long_as_gzip_begins_is_none(tmp_path: Path) -> None:
    """A safetensors file begins with the length of its header: 35,615 are gzip's first bytes."""
    path = tmp_path / "a.safetensors"
    hn.write(network(), path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].ljust(0x8B1F)
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
    assert hn.read(path).widths == network().widths


def test_an_expanded_view_gets_the_right_reason(tmp_path: Path) -> None:
    state = {
        "linear.0.weight": torch.ones(1, 1).expand(8, 8),
        "linear.0.bias": torch.zeros(8),
    }
    torch.save({8: (state, state)}, tmp_path / "a.pt")
    with pytest.raises(UnsupportedVariantError, match="contiguous"):
        hn.read(tmp_path / "a.pt")
