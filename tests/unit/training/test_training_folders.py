"""Images and captions as people have them: folders with settings of their own, masks, prior images,
trigger words, wildcards; and what is kept between runs.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from toys import Toy, encode, toy_examples, toy_settings

from hypernetworks.errors import TrainingDataError, TrainingSettingsError
from hypernetworks.training import Caption
from hypernetworks.training.cache import Cache, fingerprint
from hypernetworks.training.gathering import gather
from hypernetworks.training.pictures import PictureSettings, load_examples
from hypernetworks.training.sources import Source, sources_of


def pooled(pixels: torch.Tensor) -> tuple[torch.Tensor, None]:
    """Stands for an autoencoder: eight pixels to one latent."""
    return torch.nn.functional.avg_pool2d(pixels, 8), None


SETTINGS = PictureSettings(width=64, height=64, step=16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images of other sizes, one with a caption file."""
    own = tmp_path / "own"
    own.mkdir()
    for number, (name, size) in enumerate((("a cat", (64, 64)), ("b", (64, 96)))):
        pixels = np.full((size[1], size[0], 3), 60 + 60 * number, np.uint8)
        Image.fromarray(pixels).save(own / f"{name}.png")
    (own / "b.txt").write_text("a dog, brown, small", encoding="utf-8")
    return own


def captions(source: Source, **changes: Any) -> list[str]:
    from dataclasses import replace

    examples = load_examples(gather([source]).pictures, replace(SETTINGS, **changes), pooled)
    return [example.caption.draw(Random(0)) for example in examples]


def test_trigger_words_prefixes_and_suffixes(folder: Path) -> None:
    assert captions(Source(folder), trigger="zwx") == ["zwx, a cat", "zwx, a dog, brown, small"]
    assert captions(Source(folder), prefix="photo of", suffix=", 4k") == [
        "photo of a cat , 4k",
        "photo of a dog, brown, small , 4k",
    ]
    (folder / "b.txt").write_text("a dog, zwx", encoding="utf-8")
    assert captions(Source(folder), trigger="zwx")[1] == "zwx, a dog"
    own = Source(folder, changes={"trigger": "abc"})
    assert captions(own, trigger="zwx")[0] == "abc, a cat"


def test_the_first_tags_stay_and_a_trigger_word_is_never_left_out() -> None:
    caption = Caption(words="zwx, one, two, three, four", shuffle=True, tag_dropout=0.5, keep=2)
    drawn = [caption.draw(Random(seed)).split(", ") for seed in range(40)]
    assert all(tags[:2] == ["zwx", "one"] for tags in drawn)
    assert len({tuple(tags) for tags in drawn}) > 5
    plain = Caption(words="one, two, three", shuffle=True)
    assert plain.draw(Random(3)) == Caption(words="one, two, three", shuffle=True).draw(Random(3))


def test_wildcards_are_drawn_anew() -> None:
    caption = Caption(words="a {red|{dark|light} blue} car", wildcards=True)
    drawn = {caption.draw(Random(seed)) for seed in range(60)}
    assert drawn == {"a red car", "a dark blue car", "a light blue car"}
    assert caption.ways() is None
    assert Caption(words="a car", wildcards=True).ways() == ("a car",)
    assert Caption(words="{a|b}").draw(Random(0)) == "{a|b}"
    assert Caption(words="{{{" * 50 + "a|b", wildcards=True).draw(Random(0))


def test_masks_hide_what_is_black(folder: Path) -> None:
    masks = folder.parent / "masks"
    masks.mkdir()
    numbers = np.zeros((32, 32), np.uint8)
    numbers[:, :16] = 255
    Image.fromarray(numbers).save(masks / "A Cat.jpg", quality=100)
    found = gather([Source(folder, masks=masks)])
    assert found.notes == ["1 image without a mask of the same name, learned as a whole: b.png"]
    masked, whole = load_examples(found.pictures, SETTINGS, pooled)
    assert masked.weights is not None
    assert torch.allclose(masked.weights[0][0, :, :4], torch.tensor(2.0), atol=0.3)
    assert float(masked.weights[0][0, :, 5:].max()) < 0.1
    assert whole.weights is None
    with pytest.raises(TrainingDataError, match="no such folder of masks"):
        gather([Source(folder, masks=folder / "none")])


def test_weights_and_prior_images(folder: Path) -> None:
    prior = Source(folder, repeats=2, weight=0.5, words="a pet", is_prior=True)
    found = gather([prior]).pictures
    assert all(picture.is_prior for picture in found)
    settings = PictureSettings(width=64, height=64, step=16, trigger="zwx", template="[name]")
    examples = load_examples(found, settings, pooled, name="n")
    assert [e.caption.draw(Random(0)) for e in examples] == ["a pet", "a dog, brown, small"]
    assert all(e.repeats == 2 for e in examples)
    assert all(float(e.weights[0].mean()) == 0.5 for e in examples if e.weights is not None)
    assert examples[0].weights is not None


def test_a_weight_scales_the_gradients_of_its_image() -> None:
    def gradient(weight: float) -> torch.Tensor:
        weights = (weight * torch.ones(1, 2, 2),)
        toy = Toy(examples=toy_examples(1, weights=weights), zero_last=False)
        toy.run(toy_settings(batch=1))._gradients.accumulate(0)
        found = next(toy.network.parameters()).grad
        assert found is not None
        return found

    assert torch.allclose(gradient(0.5), gradient(1.0) / 2, rtol=1e-5)


def test_folders_are_checked(folder: Path) -> None:
    with pytest.raises(TrainingSettingsError, match="2 folders but 1 weights"):
        sources_of((folder, folder), weights=(1.0,))
    with pytest.raises(TrainingSettingsError, match="above 0"):
        Source(folder, weight=0)
    with pytest.raises(TrainingSettingsError, match="width of its own"):
        Source(folder, changes={"width": 64})


def test_crops_tell_what_sdxl_is_told(folder: Path) -> None:
    whole, cut = load_examples(gather([Source(folder)]).pictures, SETTINGS, pooled)
    assert whole.frames == ((64, 64, 0, 0),)
    assert cut.frames == ((96, 64, 16, 0),)  # height, width, top, left


def test_latents_and_texts_are_kept_between_runs(folder: Path, tmp_path: Path) -> None:
    calls: list[str] = []

    def counted(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        calls.append("image")
        return pooled(pixels)[0], torch.ones(1)

    def texts(asked: Any) -> Any:
        calls.extend(asked)
        return encode(asked)

    cache = Cache(tmp_path / "cache", fingerprint(torch.nn.Linear(2, 2)))
    pictures = gather([Source(folder)]).pictures
    first = load_examples(pictures, SETTINGS, cache.latents(counted))
    again = load_examples(pictures, SETTINGS, cache.latents(counted))
    assert calls == ["image", "image"]
    assert all(torch.equal(a.latents[0], b.latents[0]) for a, b in zip(first, again, strict=True))

    encoder = cache.texts(texts, "1 part")
    made = encoder(["a", "b"])
    assert torch.equal(cache.texts(texts, "1 part")(["b", "c"])[0]["context"], made[1]["context"])
    assert calls[2:] == ["a", "b", "c"]
    (damaged, *_) = sorted((tmp_path / "cache").rglob("*.pt"))
    damaged.write_bytes(b"no")
    assert cache.get(damaged.stem) is None
    assert Cache(tmp_path / "cache", "another model").get(damaged.stem) is None


def test_fingerprints_are_of_the_weights() -> None:
    one, other = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    assert fingerprint(one) == fingerprint(one) != fingerprint(other)
