"""CLIP's tokenizer, put together from its merges: byte symbols, the same at a word's end, the
merges, two marks.
"""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

MERGES = Path(__file__).with_name("clip_merges.txt.gz")
START, END = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer(settings: Path) -> CLIPTokenizer:
    """CLIP's tokenizer with 49408 tokens; nothing is left on the disk.

    SD2 and the second encoder of SDXL pad with ``!`` (token 0). It is set afterwards: a tokenizer
    that is *loaded* with it takes each ``!`` of a prompt for padding too, where the models were
    trained on token 256.

    Args:
        settings: a folder with a ``tokenizer_config.json``, which says what to pad with and how
            long a prompt may be.
    """
    from transformers import CLIPTokenizer

    config = json.loads((settings / "tokenizer_config.json").read_text(encoding="utf-8"))
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tokenizer_config.json").write_text(
            json.dumps(config | {"pad_token": END}), encoding="utf-8"
        )
        (folder / "vocab.json").write_text(json.dumps(vocabulary()), encoding="utf-8")
        (folder / "merges.txt").write_text("#version: 0.2\n" + merges(), encoding="utf-8")
        tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(name, local_files_only=True)
    tokenizer.pad_token = config["pad_token"]
    return tokenizer


@cache
def merges() -> str:
    """The 48894 merges of CLIP, one a line, in the order in which they apply."""
    return gzip.decompress(MERGES.read_bytes()).decode("utf-8")


def vocabulary() -> dict[str, int]:
    """Token ids by token: 256 byte symbols, 256 that end a word, one per merge, then the two
    marks.
    """
    symbols = _byte_symbols()
    pairs = (line.replace(" ", "") for line in merges().splitlines())
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols), *pairs, START, END]
    return {token: index for index, token in enumerate(tokens)}


def _byte_symbols() -> list[str]:
    """A visible character for each byte: itself where it has one, else one from 256 on (GPT-2's
    alphabet).
    """
    visible = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    return [chr(code) for code in visible] + [chr(256 + n) for n in range(256 - len(visible))]
