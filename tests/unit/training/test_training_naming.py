"""Settings in messages, by the names that a user knows them by."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from hypernetworks.cli.train import _named
from hypernetworks.cli.train_options import add_options
from hypernetworks.errors import DivergenceError, TrainingSettingsError
from hypernetworks.training import TrainingSettings
from hypernetworks.training.gathering import bad_pictures
from hypernetworks.training.naming import spelled
from hypernetworks.training.optimisers import build_optimiser
from hypernetworks.training.overview import _times
from hypernetworks.training.pictures import PictureSettings

ROOMS = ("hypernetworks/training", "hypernetworks/hosts/diffusers/training")
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def names() -> dict[str, str]:
    parser = argparse.ArgumentParser()
    add_options(parser)
    found: dict[str, str] = parser.get_default("spelled")
    return found


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: TrainingSettings(batch=0), "--batch is 0"),
        (lambda: TrainingSettings(min_snr=-1), "--min-snr is -1"),
        (lambda: TrainingSettings(loss="l3"), '--loss is "l3"'),
        (lambda: TrainingSettings(rate="fast"), "(--rate)"),
        (lambda: TrainingSettings(shape="square"), "(--shape)"),
        (lambda: PictureSettings(width=100), "(--size)"),
        (lambda: PictureSettings(fit="stretch"), "--buckets is"),
        (lambda: PictureSettings(tag_dropout=2), "--tag-dropout is 2"),
        (lambda: build_optimiser("Lion", [], 0, {}), '--optimiser "Lion"'),
        (lambda: build_optimiser("AdamW", [], 0, {"speed": 1}), "--option: AdamW has no"),
    ],
)
def test_errors_name_options_as_they_are_typed(
    names: dict[str, str], make: object, expected: str
) -> None:
    with pytest.raises(TrainingSettingsError) as caught, _named(names):
        make()  # type: ignore[operator]
    assert expected in str(caught.value)


def test_other_errors_and_messages_do_too(names: dict[str, str]) -> None:
    with pytest.raises(DivergenceError, match=r"\(--rate\)"), _named(names):
        raise DivergenceError("start again with a lower learning rate (`rate`)")
    text = str(bad_pictures([("a.png", "empty"), ("b.png", "empty")], 3))
    assert "(--skip-bad)" in spelled(text, names)
    assert spelled("`no_setting` and `steps`", names) == "`no_setting` and --steps"


def test_no_message_gives_a_value_to_an_option_that_takes_none(names: dict[str, str]) -> None:
    """Such as ``--buckets buckets``, which the command line would refuse."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    switches = {
        name for action in parser._actions if action.nargs == 0 for name in action.option_strings
    }
    marked = 0
    for room in ROOMS:
        for path in (ROOT / room).glob("*.py"):
            for field, value in re.findall(r"`([a-z_]+)` (\w+)\)", path.read_text("utf-8")):
                marked += field in names
                assert names.get(field) not in switches, (path.name, field, value)
    assert marked > 0


def test_every_setting_that_a_message_marks_has_an_option(names: dict[str, str]) -> None:
    """A message that names an option of the command line itself would be wrong in the studio."""
    for room in ROOMS:
        for path in (ROOT / room).glob("*.py"):
            code = re.sub(r'"""[\s\S]*?"""|#.*', "", path.read_text(encoding="utf-8"))
            for field in re.findall(r"(?<!`)`([a-z_]+)`(?!`)", code):
                assert field in names, (path.name, field)
            assert not re.findall(r'["( ](--[a-z][a-z-]+)', code), path.name


@pytest.mark.parametrize(
    ("epochs", "said"),
    [
        (150.2, "each image about 150 times"),
        (1.2, "each image about once"),
        (0.05, "only about 5% of the images are used"),
    ],
)
def test_how_often_images_come_is_said_in_whole_words(epochs: float, said: str) -> None:
    assert _times(epochs) == said
