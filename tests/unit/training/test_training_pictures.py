"""Pictures and captions as training sees them: sizes, versions, alpha, templates, and the order of
samples."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from toys import Toy, encode, toy_examples, toy_settings

from hypernetworks.errors import TrainingDataError, TrainingSettingsError
from hypernetworks.training import Caption, Example, Examples, train
from hypernetworks.training.captions import read_template
from hypernetworks.training.contexts import Contexts
from hypernetworks.training.examples import Order
from hypernetworks.training.gathering import Picture, gather
from hypernetworks.training.pictures import (
    PictureSettings,
    bucket_of,
    buckets,
    find_pictures,
    latent_weights,
    load_examples,
    read_versions,
    split_validation,
)
from hypernetworks.training.words import Words, read_words, words_of


def pooled(pixels: torch.Tensor) -> tuple[torch.Tensor, None]:
    """Stands for an autoencoder: eight pixels to one latent."""
    return torch.nn.functional.avg_pool2d(pixels, 8), None


def half_and_half(width: int, height: int, *, mode: str = "RGB") -> Image.Image:
    """Left half red, right half blue; with alpha, the right half is transparent."""
    numbers = np.zeros((height, width, 4), np.uint8)
    numbers[:, : width // 2] = (255, 0, 0, 255)
    numbers[:, width // 2 :] = (0, 0, 255, 0)
    return Image.fromarray(numbers).convert(mode)


def settings(width: int = 64, height: int = 64, **changes: object) -> PictureSettings:
    return PictureSettings(width=width, height=height, step=16, **changes)  # type: ignore[arg-type]


def test_pictures_are_cropped_never_squeezed(tmp_path: Path) -> None:
    half_and_half(128, 64).save(tmp_path / "a.png")
    (middle,) = read_versions(tmp_path / "a.png", settings())
    assert middle.pixels.shape == (3, 64, 64)
    assert middle.alpha is None
    assert bool((middle.pixels[0, :, :32] == 1).all())
    assert bool((middle.pixels[2, :, 32:] == 1).all())
    left, _, right = read_versions(tmp_path / "a.png", settings(crops=3))
    assert bool((left.pixels[0] == 1).all())
    assert bool((right.pixels[2] == 1).all())


def test_mirrored_versions_come_in_addition(tmp_path: Path) -> None:
    half_and_half(64, 64).save(tmp_path / "a.png")
    plain, mirrored = read_versions(tmp_path / "a.png", settings(flip=True))
    assert torch.equal(plain.pixels.flip(-1), mirrored.pixels)
    assert not torch.equal(plain.pixels, mirrored.pixels)


def test_pictures_lie_as_their_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    half_and_half(128, 64).save(tmp_path / "a.jpg", exif=exif, quality=95)
    (version,) = read_versions(tmp_path / "a.jpg", settings(64, 128))
    assert float(version.pixels[0, :60].mean()) > 0.9
    assert float(version.pixels[2, 68:].mean()) > 0.9


@given(st.integers(16, 4000), st.integers(16, 4000))
def test_buckets_keep_shape_and_area(width: int, height: int) -> None:
    chosen = PictureSettings(width=512, height=512, fit="buckets")
    across, down = bucket_of(width, height, chosen)
    assert across % 64 == down % 64 == 0
    assert across * down <= 512 * 512
    assert 0.5 <= across / down <= 2
    if 0.5 <= width / height <= 2:
        assert 0.74 < (across / down) / (width / height) < 1.35


def test_all_buckets_are_of_use() -> None:
    assert (512, 512) in buckets(PictureSettings(fit="buckets"))
    assert len(buckets(PictureSettings(fit="buckets"))) >= 5
    assert buckets(settings(16, 16, fit="buckets")) == [(16, 16)]


# --- alpha as loss weight: what AUTOMATIC1111 gets wrong


def test_opaque_alpha_weighs_nothing(tmp_path: Path) -> None:
    """AUTOMATIC1111 divides 0 by 0 here, and every loss is NaN from then on."""
    Image.new("RGBA", (64, 64), (9, 99, 199, 255)).save(tmp_path / "a.png")
    (example,) = load_examples([tmp_path / "a.png"], settings(alpha=True), pooled)
    assert example.weights is None
    weights = latent_weights(torch.full((64, 64), 0.5), 8, 8)  # nor does half of it everywhere
    torch.testing.assert_close(weights, torch.ones(1, 8, 8))


def test_alpha_is_not_turned_on_its_side(tmp_path: Path) -> None:
    """AUTOMATIC1111 swaps width and height of the mask where the picture is not square."""
    half_and_half(128, 64, mode="RGBA").save(tmp_path / "a.png")
    (example,) = load_examples([tmp_path / "a.png"], settings(128, 64, alpha=True), pooled)
    assert example.shape == (3, 8, 16)
    assert example.weights is not None
    (weights,) = example.weights
    assert weights.shape == (1, 8, 16)
    assert torch.equal(weights[0, :, :8], torch.full((8, 8), 2.0))
    assert torch.equal(weights[0, :, 8:], torch.zeros(8, 8))


def test_mirrored_pictures_have_mirrored_weights(tmp_path: Path) -> None:
    half_and_half(64, 64, mode="RGBA").save(tmp_path / "a.png")
    (example,) = load_examples([tmp_path / "a.png"], settings(alpha=True, flip=True), pooled)
    assert example.weights is not None
    assert torch.equal(example.weights[0].flip(-1), example.weights[1])


def test_without_weights_transparent_is_white(tmp_path: Path) -> None:
    half_and_half(64, 64, mode="RGBA").save(tmp_path / "a.png")
    (version,) = read_versions(tmp_path / "a.png", settings())
    assert version.alpha is None
    assert bool((version.pixels[:, :, 32:] == 1).all())
    assert bool((version.pixels[1, :, :32] == -1).all())


@pytest.mark.parametrize("size", [64, 100, 128])
def test_what_is_not_learned_keeps_its_colours_at_any_size(tmp_path: Path, size: int) -> None:
    """The autoencoder and the UNet see it from the pixels beside it."""
    Image.new("RGB", (size, size), (200, 120, 40)).save(tmp_path / "a.png")
    numbers = np.zeros((size, size), np.uint8)
    numbers[:, size // 2 :] = 255
    Image.fromarray(numbers).save(tmp_path / "mask.png")
    (version,) = read_versions(tmp_path / "a.png", settings(crops=3), tmp_path / "mask.png")
    assert version.alpha is not None
    assert version.alpha[:, :28].max() < 0.01
    colour = torch.tensor([200, 120, 40])[:, None, None] / 127.5 - 1
    torch.testing.assert_close(version.pixels, colour.expand(3, 64, 64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [64, 100, 128])
def test_weights_or_not_transparent_is_white(tmp_path: Path, size: int) -> None:
    half_and_half(size, size, mode="RGBA").save(tmp_path / "a.png")
    (version,) = read_versions(tmp_path / "a.png", settings(alpha=True))
    assert version.alpha is not None
    assert version.alpha[:, 36:].max() < 0.01
    assert version.pixels[:, :, 36:].min() > 0.99
    assert version.pixels[1, :, :28].max() < -0.99


def test_what_is_wholly_transparent_is_refused(tmp_path: Path) -> None:
    Image.new("RGBA", (64, 64), (9, 99, 199, 0)).save(tmp_path / "ghost.png")
    with pytest.raises(TrainingDataError, match=r"ghost\.png is completely transparent"):
        read_versions(tmp_path / "ghost.png", settings(alpha=True))


def test_a_batch_of_weighted_and_plain_pictures_has_weights_for_all() -> None:
    weighted = toy_examples(1, weights=(torch.tensor([[[2.0, 0.0], [2.0, 0.0]]]),))
    examples = Examples([*weighted, *toy_examples(2)[1:]], Contexts(encode), batch=2)
    batch = examples.batch([0, 1])
    assert batch.weights is not None
    assert sorted(w.flatten().tolist() for w in batch.weights) == [[1, 1, 1, 1], [2, 0, 2, 0]]
    assert Examples(toy_examples(2), Contexts(encode), batch=2).batch([0, 1]).weights is None


# --- folders


def test_bad_folders_and_pictures_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="no such folder"):
        find_pictures(tmp_path / "none")
    with pytest.raises(TrainingDataError, match="has no images"):
        find_pictures(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(TrainingDataError, match=r"broken\.png"):
        load_examples(find_pictures(tmp_path), settings(), pooled)
    for wrong in ({"fit": "squeeze"}, {"crops": 0}, {"validation": 1.0}, {"width": 50}):
        with pytest.raises(TrainingSettingsError):
            settings(**wrong)


def pictures(names: range | list[str]) -> list[Picture]:
    """Without files: the name is the content."""
    return [Picture(Path(f"{n}.png"), Words("cat"), key=str(n)) for n in names]


def test_validation_pictures_are_the_same_every_time() -> None:
    found = pictures(range(40))
    shown, kept = split_validation(found, 0.1, 0)
    assert len(kept) == 4
    assert {p.key for p in [*shown, *kept]} == {p.key for p in found}
    assert split_validation(found[::-1], 0.1, 0)[1] == kept[::-1]
    assert split_validation(found, 0.1, 1)[1] != kept
    assert split_validation(found[:7], 0.1, 0)[1] == []
    assert split_validation(found, 0.0, 0)[1] == []


def test_what_was_trained_on_never_becomes_validation() -> None:
    found = pictures(range(20))
    shown, kept = split_validation(found, 0.1, 0)
    earlier = {p.key: p in kept for p in found}
    for added in range(1, 30):
        more = found + pictures([f"extra {i}" for i in range(added)])
        now_shown, now_kept = split_validation(more, 0.1, 0, earlier)
        assert not set(shown) & set(now_kept)
        assert not set(kept) & set(now_shown)
    assert len(now_kept) == 5


def test_copies_of_a_picture_stay_together(tmp_path: Path) -> None:
    for number in range(10):
        for copy in "abc":
            (tmp_path / f"{copy}{number}.png").write_bytes(bytes([number]))
    for seed in range(5):
        shown, kept = split_validation(sorted(tmp_path.iterdir()), 0.2, seed)
        assert len(kept) == 6
        assert not {p.read_bytes() for p in shown} & {p.read_bytes() for p in kept}


# --- captions


def test_captions_come_from_text_files_and_names(tmp_path: Path) -> None:
    (tmp_path / "1.txt").write_bytes(b"\xef\xbb\xbfa red apple,\r\n shiny \r\n")
    assert words_of(tmp_path / "1.png") == "a red apple, shiny"
    assert words_of(tmp_path / "0012-a_red apple.png") == "a red apple"
    (tmp_path / "2.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TrainingDataError, match=r"2\.txt.*UTF-8"):
        words_of(tmp_path / "2.png")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("1girl, solo", "1girl, solo"),
        ("3d render of a cat", "3d render of a cat"),
        ("50s diner", "50s diner"),
        ("2b nier automata", "2b nier automata"),
        ("00001-0-apple", "apple"),
        ("3 a red apple", "a red apple"),
        ("facade 12", "facade 12"),
        ("picture of 3 cats", "picture of 3 cats"),
        ("IMG_6003", ""),
        ("DSC01234", ""),
        ("20230101_123456", ""),
        ("IMG-20200101-WA0001", ""),
        ("Screenshot 2020-01-02 at 10.20.30", ""),
        ("PXL_20230102_101010.MP", ""),
        ("image (3)", ""),
        ("d41d8cd98f00b204e9800998ecf8427e", ""),
        ("550e8400-e29b-41d4-a716-446655440000", ""),
    ],
)
def test_numbers_and_names_of_cameras_are_no_words(name: str, wanted: str) -> None:
    assert words_of(Path(f"{name}.png")) == wanted


@pytest.mark.parametrize(
    "file", ["x.txt", "x.TXT", "x.caption", "x.png.txt", "x.Caption", "x.json", "x.png.json"]
)
def test_captions_beside_a_picture_are_read(tmp_path: Path, file: str) -> None:
    text = '{"tags": ["a red", "box"]}' if file.endswith("json") else "a red, box"
    (tmp_path / file).write_text(text, encoding="utf-8")
    assert words_of(tmp_path / "x.png") == "a red, box"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "cp1252", "utf-16-be"])
def test_encodings_of_captions(tmp_path: Path, encoding: str) -> None:
    begin = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "x.txt").write_bytes((begin + "ein schönes rotes Haus").encode(encoding))
    words = read_words(tmp_path / "x.png")
    assert words.text == "ein schönes rotes Haus"
    assert (words.note is not None) == (encoding == "cp1252")


def test_captions_in_an_encoding_that_can_not_be_told_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes("红色的苹果".encode("gbk"))
    with pytest.raises(TrainingDataError, match=r"x\.txt isn't valid UTF-8"):
        words_of(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("metadata.jsonl", (
            '{"file_name": "a.png", "text": '
            '"one"}\n{"file_name": "b.png", "text": '
            '"two"}\n'
        )),
        ("meta_cap.json", '{"a": {"caption": "one"}, "b": {"caption": "two"}}'),
        ("captions.json", '{"a.png": "one", "b.png": ["two", "three"]}'),
    ],
)  # fmt: skip
def test_captions_of_a_whole_folder(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text, encoding="utf-8")
    assert [words_of(tmp_path / name) for name in ("a.png", "b.png")] == ["one", "two"]
    (tmp_path / file).write_text("{", encoding="utf-8")
    with pytest.raises(TrainingDataError, match="isn't valid JSON"):
        words_of(tmp_path / "a.png")


ODD = "a\u2028b\x0cc\x85d"
"""One line, though ``str.splitlines()`` makes four of it."""


def test_only_newlines_end_lines(tmp_path: Path) -> None:
    entries = ({"file_name": "a.png", "text": ODD}, {"file_name": "b.png", "text": "plain"})
    lines = "\r\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    (tmp_path / "metadata.jsonl").write_text(lines, encoding="utf-8")
    assert [words_of(tmp_path / name) for name in ("a.png", "b.png")] == ["a b c d", "plain"]

    (tmp_path / "b.txt").write_bytes(f"{ODD}\r\nmore\n".encode())
    assert read_words(tmp_path / "b.png").lines == ("a b c d", "more")
    (tmp_path / "t.txt").write_text(f"{ODD}\n[name]\n", encoding="utf-8")
    assert read_template(str(tmp_path / "t.txt")) == (ODD, "[name]")


def test_lines_of_a_caption_file_are_drawn_where_asked(tmp_path: Path) -> None:
    half_and_half(64, 64).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a red box\nsomething else\n", encoding="utf-8")
    one, several = (
        load_examples([tmp_path / "a.png"], settings(caption_lines=lines), pooled)[0].caption
        for lines in (False, True)
    )
    assert one.ways() == ("a red box something else",)
    assert several.ways() == ("a red box", "something else")
    assert {several.draw(Random(i)) for i in range(20)} == {"a red box", "something else"}


def test_templates_are_lines(tmp_path: Path) -> None:
    (tmp_path / "style.txt").write_text(
        "a [filewords] by [name]\n\n[name]: [filewords]\n", encoding="utf-8"
    )
    lines = read_template(str(tmp_path / "style.txt"))
    caption = Caption(lines, "cat", "me")
    assert caption.ways() == ("a cat by me", "me: cat")
    assert read_template("x [filewords]") == ("x [filewords]",)
    for wrong, match in ((" ", "empty"), (str(tmp_path / "none.txt"), "no such file")):
        with pytest.raises(TrainingDataError, match=match):
            read_template(wrong)


def test_captions_are_drawn_anew_each_time() -> None:
    """AUTOMATIC1111 draws a template line once per picture, when the data set is loaded, and keeps
    it for ever."""
    lines = tuple(f"{word} [filewords]" for word in ("a", "the", "one", "my"))
    example = Example("1", Caption(lines, "cat"), (torch.zeros(4, 2, 2),))
    examples = Examples([example], Contexts(encode), batch=1)
    seen = Counter(examples._draw(sample)[2] for sample in range(200))
    assert set(seen) == {"a cat", "the cat", "one cat", "my cat"}
    assert min(seen.values()) > 25


def test_tags_are_shuffled_and_left_out() -> None:
    tags = ["a", "b", "c", "d"]
    drawn = [
        Caption(("[filewords]",), "a, b,c ,d", shuffle=True).draw(Random(i)) for i in range(50)
    ]
    assert all(sorted(text.split(", ")) == tags for text in drawn)
    assert len(set(drawn)) > 10
    kept = [
        Caption(("[filewords]",), "a, b, c, d", tag_dropout=0.5).draw(Random(i)).split(", ")
        for i in range(200)
    ]
    assert 300 < sum(len([tag for tag in row if tag]) for row in kept) < 500
    assert all(row == sorted(row) for row in kept)


# --- folders as people have them


def saved(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    half_and_half(64, 64).save(path)
    return path


def test_kohya_folders_repeat_their_pictures(tmp_path: Path) -> None:
    saved(tmp_path / "10_my cat" / "a cat.png")
    saved(tmp_path / "2_cats" / "b.png")
    saved(tmp_path / "raw" / "c.png")
    saved(tmp_path / "d.png")
    found = gather([tmp_path])
    assert {p.path.name: p.repeats for p in found.pictures} == {"a cat.png": 10, "b.png": 2}
    assert any("raw (1 image)" in line for line in found.left_out)
    assert any("1 image in" in line for line in found.left_out)
    assert [p.name for p in find_pictures(tmp_path)] == ["a cat.png", "b.png"]
    assert [e.repeats for e in load_examples(found.pictures, settings(), pooled)] == [10, 2]


def test_several_folders_with_repeats(tmp_path: Path) -> None:
    folders = [saved(tmp_path / name / "a.png").parent for name in ("one", "two")]
    assert [p.repeats for p in gather(folders, [3, 1]).pictures] == [3, 1]
    with pytest.raises(TrainingSettingsError, match="2 folders but 1 repeats"):
        gather(folders, [3])
    with pytest.raises(TrainingDataError, match="name those"):
        gather([tmp_path])


def test_what_is_not_learned_is_named(tmp_path: Path) -> None:
    saved(tmp_path / "a.png")
    for name in ("phone.heic", "clip.mp4", "lost.txt", "Thumbs.db", "a.npz", ".DS_Store"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a.caption").write_text("cat", encoding="utf-8")
    found = gather([tmp_path])
    assert [p.words.text for p in found.pictures] == ["cat"]
    assert found.left_out == [
        "files of a kind that is not read: clip.mp4, phone.heic",
        "files captions without an image: lost.txt",
    ]


def test_pictures_of_every_suffix_are_read(tmp_path: Path) -> None:
    for name, kind in (("a.jfif", "JPEG"), ("b.gif", "GIF"), ("c.PNG", "PNG"), ("d.jpe", "JPEG")):
        half_and_half(64, 64).save(tmp_path / name, format=kind)
    assert len(load_examples(gather([tmp_path]).pictures, settings(), pooled)) == 4


def test_all_bad_pictures_are_named_at_once(tmp_path: Path) -> None:
    saved(tmp_path / "good.png")
    for number in range(3):
        (tmp_path / f"bad{number}.jpg").write_bytes(b"<html>403</html>")
    found = gather([tmp_path])
    with pytest.raises(TrainingDataError, match=r"3 of 4 images.*bad0.jpg.*bad1.jpg.*bad2.jpg"):
        found.check()
    found.check(skip_bad=True)
    assert "left out" in found.notes[-1]
    content = (tmp_path / "good.png").read_bytes()
    for name in ("cut1.png", "cut2.png"):  # the header is sound
        (tmp_path / name).write_bytes(content[:80])
    with pytest.raises(TrainingDataError, match=r"2 of \d images.*cut1.png.*cut2.png"):
        load_examples(gather([tmp_path]).pictures, settings(), pooled)


def test_copies_are_told(tmp_path: Path) -> None:
    content = saved(tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(content)
    assert "1 image with copies" in gather([tmp_path]).notes[0]


# --- order, and what is encoded
# ------------------------------------------------------------------------------------


@given(st.integers(1, 30), st.integers(1, 7), st.integers(0, 5))
def test_every_example_comes_once_per_epoch(count: int, batch: int, seed: int) -> None:
    order = Order([(4, 2, 2)] * count, batch, seed)
    epochs = [[order.example(epoch * count + i) for i in range(count)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert count < 8 or len({tuple(epoch) for epoch in epochs}) == 3


@given(
    st.lists(st.sampled_from([(4, 2, 2), (4, 2, 3), (4, 3, 2)]), min_size=2, max_size=30),
    st.integers(1, 5),
)
def test_every_example_comes_once_per_epoch_whatever_its_shape(
    shapes: list[tuple[int, ...]], step: int
) -> None:
    order, count = Order(shapes, step, 0), len(shapes)
    epochs = [[order.example(epoch * count + i) for i in range(count)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)

    samples = [i for epoch in epochs for i in epoch]
    steps = [samples[i : i + step] for i in range(0, len(samples) - step + 1, step)]
    mixed = sum(len({shapes[i] for i in indexes}) > 1 for indexes in steps)
    left = sum(count % step for count in Counter(shapes).values())
    assert mixed * step <= 4 * (left + 2 * step)  # what is left of a shape, and where epochs meet


@pytest.mark.parametrize("batch", [1, 2, 4, 8, 16])
def test_an_odd_picture_counts_as_much_as_the_others(batch: int) -> None:
    order = Order([(4, 64, 64)] * 30 + [(4, 48, 80)], batch, 0)
    count = Counter(order.example(i) for i in range(3100))
    assert count[30] == pytest.approx(100, rel=0.05)


def test_repeated_pictures_come_as_often_as_they_are_repeated() -> None:
    order = Order([(4, 2, 2)] * 2 + [(4, 2, 3)], 4, 0, [1, 3, 2])
    assert order.epoch_length == 6
    assert Counter(order.example(i) for i in range(60)) == {0: 10, 1: 30, 2: 20}


def test_batches_of_several_shapes_equal_small_ones() -> None:
    """A step with pictures of two shapes is one mean over all of them, however it is cut into
    passes.
    """
    examples = toy_examples(5)
    wide = Example("w", Caption(("picture 9",)), (torch.full((4, 2, 3), 0.5),))
    found = []
    for batch, accumulation in ((4, 1), (1, 4), (2, 2)):
        toy = Toy(examples=[*examples, wide])
        changes = {"batch": batch, "accumulation": accumulation, "steps": 5, "optimiser": "SGD"}
        train(toy.run(toy_settings(**changes)))
        found.append(toy.weights())
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            torch.testing.assert_close(one, two)


def test_nothing_is_encoded_twice() -> None:
    calls: list[list[str]] = []

    def counted(texts: list[str]) -> list[dict[str, torch.Tensor]]:
        calls.append(list(texts))
        return encode(texts)  # type: ignore[return-value]

    examples = Examples(toy_examples(5), Contexts(counted), batch=2, caption_dropout=0.2)  # type: ignore[arg-type]
    for step in range(500):
        examples.prepare(2 * step, 2 * step + 2)
        examples.batch([2 * step, 2 * step + 1])
    assert [sorted(call) for call in calls] == [sorted(["", *(f"picture {i}" for i in range(5))])]


def test_many_captions_are_encoded_ahead_in_blocks() -> None:
    calls: list[int] = []

    def counted(texts: list[str]) -> list[dict[str, torch.Tensor]]:
        calls.append(len(texts))
        return encode(texts)  # type: ignore[return-value]

    caption = Caption(("[filewords]",), ", ".join("abcdefghij"), shuffle=True)
    example = Example("1", caption, (torch.zeros(4, 2, 2),))
    examples = Examples([example], Contexts(counted, most=300), batch=1)  # type: ignore[arg-type]
    for step in range(600):
        examples.prepare(step, step + 1)
        examples.batch([step])
    assert len(calls) == 3
    assert min(calls) > 200


def test_latents_are_drawn_from_their_spread_where_asked() -> None:
    example = Example(
        "1", Caption(), (torch.full((4, 2, 2), 3.0),), spread=(torch.full((4, 2, 2), 0.5),)
    )
    examples = Examples([example], Contexts(encode), batch=1)
    drawn = torch.cat([examples.batch([n]).latents for n in range(300)])
    assert abs(float(drawn.mean()) - 3) < 0.05
    assert abs(float(drawn.std()) - 0.5) < 0.05
    assert torch.equal(examples.batch([7]).latents, examples.batch([7]).latents)


def test_nothing_to_learn_from_is_an_error() -> None:
    with pytest.raises(TrainingDataError, match="nothing to train on"):
        Examples([], Contexts(encode))


# --- what cameras, scanners and systems leave behind


@pytest.mark.parametrize(
    ("dtype", "largest"), [(np.uint16, 65535), (np.int32, 65535), (np.int32, 255), (np.float32, 1)]
)
def test_grey_of_many_bits_keeps_its_shades(tmp_path: Path, dtype: Any, largest: int) -> None:
    shades = (np.linspace(0, 1, 64 * 64).reshape(64, 64) * largest).astype(dtype)
    Image.fromarray(shades).save(tmp_path / "a.tif")
    (version,) = read_versions(tmp_path / "a.tif", settings())
    wanted = torch.linspace(-1, 1, 64 * 64).reshape(64, 64).expand(3, 64, 64)
    assert (version.pixels - wanted).abs().max() < 0.01


def test_grey_that_means_nothing_known_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((64, 64), 1e6, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(TrainingDataError, match=r"a\.tif"):
        read_versions(tmp_path / "a.tif", settings())


def test_only_what_is_to_be_seen_of_a_picture_is_learned(tmp_path: Path) -> None:
    numbers = np.zeros((64, 256, 4), np.uint8)
    numbers[:, 96:160] = 200, 10, 10, 255
    Image.fromarray(numbers).save(tmp_path / "a.png")
    (version,) = read_versions(tmp_path / "a.png", settings(alpha=True, crops=3))
    assert version.pixels[0].min() > 0


def test_what_macos_puts_beside_pictures_is_none(tmp_path: Path) -> None:
    for name in ("._a.png", "a.png"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in find_pictures(tmp_path)] == ["a.png"]


def test_captions_without_words_are_known() -> None:
    assert Caption(("[filewords]",), "").is_empty
    assert not Caption(("[filewords]", "a [name]"), "", "cat").is_empty
    assert not Caption(("[filewords]",), "a cat").is_empty
