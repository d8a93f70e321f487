"""The tag language: finding tags, understanding them, changing one value, schedules, blocks, and
the infotext."""

from __future__ import annotations

import math
import random
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import hypernetworks as hn
from hypernetworks.engine.blocks import preset_factors
from hypernetworks.engine.multiplier import (
    BLOCK_PRESETS,
    BLOCKS_SD1,
    BLOCKS_SDXL,
    Multiplier,
    Schedule,
    format_number,
    parse_number,
)
from hypernetworks.errors import MultiplierError, TagError, sendable
from hypernetworks.prompts import Tag, format_infotext, parse, parse_infotext

WEBUI = re.compile(r"<(\w+):([^>]+)>")
"""How the webui finds extra networks."""

PIECES = st.sampled_from([
    "<hypernet:", "<hypernet:ink", "<hypernet:ink:0.5>", "<hypernet:a b/c.d:1:k=2>", "<lora:x:1>", "<lora:", "<", ">",
    ":", "[", "]", "(", ")", "|", "\\", "@", ",", ";", "=", " ", "\n", "0.5", "10", "1", "start=", "lbw=", "OUTALL",
    "ж", "夏", "9" * 400, "1e999", "nan", "\0", "\ud800", "a cat", "hr=", "attn=cross",
])  # fmt: skip
PROMPTS = st.one_of(st.lists(PIECES, max_size=25).map("".join), st.text(max_size=60))
NAMES = [
    "ink",
    "my style",
    "folder/sub folder/ink",
    "v1.5 [final]",
    "夏の絵",
    "чернила",
    "a=b",
    "x(y)",
    "100%",
    "-1",
]


def only(prompt: str) -> Tag:
    """The one tag of a prompt."""
    _, (tag,) = parse(prompt)
    return tag


def understood(tail: str) -> Multiplier:
    """The multiplier of ``<hypernet:ink:TAIL>``, which must have no error."""
    tag = only(f"<hypernet:ink:{tail}>")
    assert tag.error is None
    assert tag.multiplier is not None
    return tag.multiplier


# Finding


@settings(max_examples=400)
@given(PROMPTS)
def test_clean_is_what_the_webui_leaves(prompt: str) -> None:
    clean, tags = parse(prompt)
    assert clean == WEBUI.sub(lambda m: "" if m[1] == "hypernet" else m[0], prompt)
    assert len(tags) == sum(m[1] == "hypernet" for m in WEBUI.finditer(prompt))


@settings(max_examples=400)
@given(PROMPTS)
def test_parsing_never_raises_and_a_tag_is_its_exact_source(prompt: str) -> None:
    clean, tags = parse(prompt)
    rebuilt = clean
    for tag in tags:
        assert prompt[tag.start :].startswith(str(tag))
        assert str(tag) == "<hypernet:" + ":".join(tag.items) + ">"
        assert (tag.error is None) != (tag.multiplier is None)
        assert tag.error is None or sendable(str(tag)) in str(tag.error)
        rebuilt = rebuilt[: tag.start] + str(tag) + rebuilt[tag.start :]
    assert rebuilt == prompt


@pytest.mark.parametrize(
    ("prompt", "clean"),
    [
        ("a <hypernet:x:1> b", "a  b"),
        ("<hypernet:x>", ""),
        ("a<hypernet:x:1><hypernet:y:1>b", "ab"),
        ("<lora:x:1> <hypernet:x:1> <hyper:x>", "<lora:x:1>  <hyper:x>"),
        ("<Hypernet:x:1> <hypernets:x:1>", "<Hypernet:x:1> <hypernets:x:1>"),
        ("<hypernet:> <hypernet> <hypernet:x", "<hypernet:> <hypernet> <hypernet:x"),
        ("<<hypernet:x:1>>", "<>"),
        ("(a cat:1.2) <hypernet:x\n:1>, [dog]", "(a cat:1.2) , [dog]"),
    ],
)
def test_what_is_left_of_a_prompt(prompt: str, clean: str) -> None:
    assert parse(prompt)[0] == clean


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tail", ["", ":0.7", ":1:k=2"])
def test_names_of_any_kind(name: str, tail: str) -> None:
    tag = only(f"x <hypernet:{name}{tail}> y")
    assert tag.name == name
    assert tag.error is None


def test_order_and_repetition_are_kept() -> None:
    _, tags = parse("<hypernet:b:1> and <hypernet:a:2> and <hypernet:b:3>")
    assert [(tag.name, tag.items[1]) for tag in tags] == [("b", "1"), ("a", "2"), ("b", "3")]


def test_the_public_parse_is_this_one() -> None:
    assert hn.parse is parse
    assert hn.Tag is Tag


# Understanding


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.7", 0.7),
        ("1", 1.0),
        ("0", 0.0),
        ("-0.5", -0.5),
        ("2.5", 2.5),
        (" 0.5 ", 0.5),
        ("1e-2", 0.01),
        (".5", 0.5),
        ("\u22120.5", -0.5),
        ("\u20130.5", -0.5),
        ("0.5\u200b", 0.5),
        ("\u200e0.5\ufeff", 0.5),
    ],
)
def test_plain_multipliers(text: str, value: float) -> None:
    for step in range(3):
        assert understood(text).at(step, 3) == value
        assert understood(text).at(step, 3, hires=True) == value


def test_no_multiplier_means_1() -> None:
    tag = only("<hypernet:ink>")
    assert tag.multiplier == Multiplier()
    assert tag.multiplier.at(0, 1) == 1.0


def test_further_plain_values_are_ignored_as_in_the_webui() -> None:
    assert understood("0.5:0.25:-3") == understood("0.5")


def test_named_arguments_need_no_number_before_them() -> None:
    assert understood("k=0.5") == Multiplier(key=0.5)
    assert understood("attn=self:0.25") == Multiplier(Schedule.constant(0.25), attention="self")


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        ("1:start=0.2:stop=0.8", {"start": 0.2, "stop": 0.8}),
        ("1:start=3", {"start": 3.0, "window_in_steps": True}),
        ("1:start=0:stop=8", {"start": 0.0, "stop": 8.0, "window_in_steps": True}),
        ("1:k=0.5:v=-1", {"key": 0.5, "value": -1.0}),
        ("1:attn=cross", {"attention": "cross"}),
        ("1:attn=self", {"attention": "self"}),
        ("1:attn=both", {}),
        ("1: k = 0.5 ", {"key": 0.5}),
        ("1:lbw=OUTALL", {"blocks": "OUTALL"}),
        ("1:lbw=outall", {"blocks": "OUTALL"}),
        ("1:lbw=0,0.5,1,0,0,0,0,0,0,0,0", {"blocks": (0.0, 0.5, 1.0, *(0.0,) * 8)}),
        ("1:hr=0.4", {"hires": Schedule.constant(0.4)}),
    ],
)
def test_named_arguments(tail: str, expected: dict[str, object]) -> None:
    assert understood(tail) == replace(Multiplier(), **expected)  # type: ignore[arg-type]


def test_the_hires_pass_has_its_own_multiplier() -> None:
    multiplier = understood("0.8:hr=0@0,1@1")
    assert [multiplier.at(s, 3) for s in range(3)] == [0.8, 0.8, 0.8]
    assert [multiplier.at(s, 3, hires=True) for s in range(3)] == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("tail", "needles"),
    [
        ("0,5", ['"0,5"', "0.5"]),
        ("-1,25", ["-1.25"]),
        ("abc", ['"abc"', "not a number", "0.7"]),
        ("nan", ["finite"]),
        ("inf", ["finite"]),
        ("-1e999", ["finite"]),
        ("", ["not a number"]),
        ("1:strength=2", ['"strength"', "start, stop, hr, k, v, attn, lbw"]),
        ("1:=2", ["unknown argument"]),
        ("1:k=2:k=3", ['"k"', "twice"]),
        ("1:k=x", ["argument k", '"x"']),
        ("1:v=nan", ["argument v", "finite"]),
        ("1:attn=both sides", ["attn=cross", "attn=self"]),
        ("1:start=x", ["argument start"]),
        ("1:start=-0.1", ["negative", "start at 0"]),
        ("1:stop=-3", ["negative"]),
        ("1:hr=x", ["argument hr"]),
        ("0@0,1", ['"1"', "value@position"]),
        ("0@0,x@1", ["value", '"x"']),
        ("0@0,1@x", ["position", '"x"']),
        ("0@-1", ["negative"]),
        ("@", ["not a number"]),
        ("0@0,1@1:start=5", ["fractions", "steps"]),
        ("1:lbw=NOSUCH", ["NOSUCH", "OUTALL", "list of numbers"]),
        ("1:lbw=1,1,1", ["3 numbers", "16", "17"]),
        ("1:lbw=" + ",".join("1" * 18), ["18 numbers"]),
        ("1:lbw=1,x" + ",1" * 14, ["list of numbers"]),
    ],
)
def test_errors_name_the_tag_the_position_and_what_would_be_right(
    tail: str, needles: list[str]
) -> None:
    source = f"<hypernet:my ink:{tail}>"
    tag = only(f"12345{source} end")
    assert tag.multiplier is None
    assert isinstance(tag.error, TagError)
    message = str(tag.error)
    assert message.startswith(f"{source} at character 6: ")
    assert [needle for needle in needles if needle not in message] == []
    with pytest.raises(MultiplierError):
        Multiplier.parse(tail)


def test_a_tag_without_a_name() -> None:
    assert "has no name" in str(only("<hypernet: :1>").error)
    assert "has no name" in str(only("<hypernet::1>").error)


def test_one_bad_tag_does_not_spoil_the_others() -> None:
    clean, tags = parse("a <hypernet:x:oops> b <hypernet:y:0.5>")
    assert clean == "a  b "
    assert [tag.error is None for tag in tags] == [False, True]


@pytest.mark.parametrize("value", ["x", float("nan"), float("inf"), "0@0,1", ""])
def test_multipliers_given_to_python_are_checked(value: float | str) -> None:
    with pytest.raises(MultiplierError):
        Multiplier.of(value)


def test_multipliers_given_to_python() -> None:
    assert (
        Multiplier.of(0.5)
        == Multiplier.of("0.5")
        == Multiplier.of(Schedule.constant(0.5))
        == understood("0.5")
    )
    assert Multiplier.of(2) == understood("2")
    made = understood("0.5:k=2")
    assert Multiplier.of(made) is made


# Schedules


@pytest.mark.parametrize(
    ("text", "total", "values"),
    [
        ("0@0,1@0.5", 5, [0, 0.5, 1, 1, 1]),
        ("0@0;1@1", 5, [0, 0.25, 0.5, 0.75, 1]),
        ("1@1,0@0", 3, [0, 0.5, 1]),
        ("1@0.25,0@0.75", 5, [1, 1, 0.5, 0, 0]),
        ("0@0,1@4", 7, [0, 0.25, 0.5, 0.75, 1, 1, 1]),
        ("2@2,-2@6", 9, [2, 2, 2, 1, 0, -1, -2, -2, -2]),
        ("0.3@0.5", 3, [0.3, 0.3, 0.3]),
        ("0.3@5", 3, [0.3, 0.3, 0.3]),
        ("0@0.5,1@0.5", 3, [0, 1, 1]),
        ("0@0,1@1,0@2", 4, [0, 1, 0, 0]),
        ("1@0,0@1", 1, [1]),
        ("1@0,0@100", 1, [1]),
        ("1@0.5,0@1", 1, [1]),
    ],
)
def test_schedules(text: str, total: int, values: list[float]) -> None:
    schedule = Schedule.parse(text)
    assert [schedule.at(step, total) for step in range(total)] == pytest.approx(values)
    assert [understood(text).at(step, total) for step in range(total)] == pytest.approx(values)


def test_the_largest_position_decides_the_unit() -> None:
    assert not Schedule.parse("0@0,1@1").in_steps
    assert Schedule.parse("0@0,1@1.5").in_steps
    assert Schedule.parse("0@0.5,1@20").in_steps


POINTS = st.lists(st.tuples(st.floats(-3, 3), st.floats(0, 1)), min_size=1, max_size=5)


@settings(max_examples=200)
@given(points=POINTS, total=st.integers(1, 40), scale=st.sampled_from([1, 30]))
def test_schedules_interpolate_and_hold_their_ends(
    points: list[tuple[float, float]], total: int, scale: int
) -> None:
    schedule = Schedule.parse(
        ",".join(f"{value!r}@{position * scale!r}" for value, position in points)
    )
    ordered = sorted(((v, p * scale) for v, p in points), key=lambda point: point[1])
    for step in range(total):
        position = step if schedule.in_steps else step / (total - 1) if total > 1 else 0.0
        value = schedule.at(step, total)
        below = [point for point in ordered if point[1] <= position]
        above = [point for point in ordered if point[1] > position]
        if not below or not above:
            assert value == (above[0] if above else below[-1])[0]
        else:
            (v0, p0), (v1, p1) = below[-1], above[0]
            assert value == pytest.approx(v0 + (v1 - v0) * (position - p0) / (p1 - p0), abs=1e-9)


@pytest.mark.parametrize(
    ("tail", "total", "on"),
    [
        ("1:start=0.25:stop=0.75", 5, [0, 1, 1, 1, 0]),
        ("1:start=0.26:stop=0.74", 5, [0, 0, 1, 0, 0]),
        ("1:start=0.5", 3, [0, 1, 1]),
        ("1:stop=0.5", 3, [1, 1, 0]),
        ("1:start=2:stop=3", 5, [0, 0, 1, 1, 0]),
        ("1:stop=2", 4, [1, 1, 1, 0]),
        ("1:start=0:stop=0", 3, [1, 0, 0]),
        ("1:start=1", 3, [0, 0, 1]),
        ("1:stop=1", 3, [1, 1, 1]),
        ("1:stop=0", 1, [1]),
        ("1:start=0.1", 1, [0]),
        ("1@0,1@3:start=1", 4, [0, 1, 1, 1]),
        ("1@0,1@3:stop=1", 4, [1, 1, 0, 0]),
    ],
)
def test_start_and_stop_include_their_ends(tail: str, total: int, on: list[int]) -> None:
    assert [understood(tail).at(step, total) for step in range(total)] == on


def test_start_and_stop_hold_in_the_hires_pass_too() -> None:
    multiplier = understood("1:hr=0.5:start=0.5")
    assert [multiplier.at(step, 3, hires=True) for step in range(3)] == [0, 0.5, 0.5]


@pytest.mark.parametrize(
    ("tail", "constant", "zero"),
    [
        ("1", True, False),
        ("0", True, True),
        ("0@0,0@1", True, True),
        ("0@0,1@1", False, False),
        ("0:hr=1", False, False),
        ("0:hr=0", True, True),
        ("1:stop=0.5", False, False),
        ("1:k=0:v=0", True, True),
        ("1:k=0", True, False),
        ("1:lbw=NONE", True, True),
        ("1:lbw=MIDD", True, False),
    ],
)
def test_what_is_known_without_a_step(tail: str, constant: bool, zero: bool) -> None:
    assert (understood(tail).is_constant, understood(tail).is_zero) == (constant, zero)


# Text and back

NUMBERS = st.one_of(st.sampled_from([0.0, 1.0, 0.7, -0.25, 10.0]), st.floats(-1e3, 1e3))
SCHEDULES = st.one_of(
    NUMBERS.map(format_number),
    st.lists(st.tuples(NUMBERS, st.floats(0, 1)), min_size=1, max_size=3).map(
        lambda pairs: ",".join(f"{format_number(v)}@{format_number(p)}" for v, p in pairs)
    ),
)
ARGUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "start": st.floats(0, 1).map(format_number),
        "stop": st.floats(0, 1).map(format_number),
        "hr": SCHEDULES,
        "k": NUMBERS.map(format_number),
        "v": NUMBERS.map(format_number),
        "attn": st.sampled_from(["cross", "self"]),
        "lbw": st.one_of(
            st.sampled_from(sorted(BLOCK_PRESETS)),
            st.sampled_from([11, 12, 16, 17]).flatmap(
                lambda n: st.lists(NUMBERS.map(format_number), min_size=n, max_size=n).map(",".join)
            ),
        ),
    },
)


@st.composite
def tags(draw: st.DrawFn) -> str:
    """A tag that can be understood."""
    items = [f"{key}={value}" for key, value in draw(ARGUMENTS).items()]
    if draw(st.booleans()):
        items.insert(draw(st.integers(0, len(items))), draw(SCHEDULES))
    source = f"<hypernet:{':'.join([draw(st.sampled_from(NAMES)), *items])}>"
    assume(only(source).error is None)  # such as a window that ends before it begins
    return source


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_round_trip(number: float) -> None:
    assert parse_number(format_number(number)) == number


@pytest.mark.parametrize(
    ("number", "text"), [(1.0, "1"), (0.7, "0.7"), (-0.25, "-0.25"), (1e22, "1e+22"), (0.0, "0")]
)
def test_numbers_are_written_short(number: float, text: str) -> None:
    assert format_number(number) == text


@pytest.mark.slow
@settings(max_examples=200)
@given(tags())
def test_a_multiplier_as_text_means_the_same(source: str) -> None:
    multiplier = only(source).multiplier
    assert multiplier is not None
    again = Multiplier.parse(str(multiplier))
    assert str(again) == str(multiplier)
    for hires in (False, True):
        for step in range(6):
            assert again.at(step, 6, hires=hires) == multiplier.at(step, 6, hires=hires)
    unscheduled = {"strength": Schedule.constant(1), "hires": None, "window_in_steps": False}
    assert replace(again, **unscheduled) == replace(multiplier, **unscheduled)  # type: ignore[arg-type]


@pytest.mark.slow
@settings(max_examples=200)
@given(source=tags(), value=NUMBERS)
def test_with_multiplier_changes_that_value_and_nothing_else(source: str, value: float) -> None:
    tag = only(source)
    changed = tag.with_multiplier(value)
    before, after = tag.multiplier, changed.multiplier
    assert before is not None
    assert after is not None
    assert after.strength == Schedule.constant(value)
    kept = [item for item in tag.items[1:] if "=" in item]
    assert [item for item in changed.items[1:] if "=" in item] == kept
    assert changed.name == tag.name
    assert len(changed.items) == len(kept) + 2
    fields = {"strength": before.strength, "window_in_steps": before.window_in_steps}
    assert replace(after, **fields) == before  # type: ignore[arg-type]
    assert changed.with_multiplier(str(before.strength)).multiplier is not None


@pytest.mark.parametrize(
    ("source", "value", "expected"),
    [
        ("<hypernet:ink>", 0.5, "<hypernet:ink:0.5>"),
        ("<hypernet:ink:1>", 0.5, "<hypernet:ink:0.5>"),
        ("<hypernet:ink:k=2>", 1, "<hypernet:ink:1:k=2>"),
        ("<hypernet:ink: 1 : k = 2 >", 0.5, "<hypernet:ink:0.5: k = 2 >"),
        ("<hypernet:ink:k=2:0.7:v=1>", 0.1, "<hypernet:ink:k=2:0.1:v=1>"),
        ("<hypernet:a=b:0.7>", 0.1, "<hypernet:a=b:0.1>"),
        ("<hypernet:ink:0@0,1@1:hr=0.3>", "1@0,0@1", "<hypernet:ink:1@0,0@1:hr=0.3>"),
        ("<hypernet:ink:broken>", 1, "<hypernet:ink:1>"),
    ],
)
def test_with_multiplier_to_the_letter(source: str, value: float | str, expected: str) -> None:
    assert str(only(source).with_multiplier(value)) == expected


def test_with_name_and_with_argument() -> None:
    assert str(only("<hypernet:a:0.5:k=1>").with_name("b/c")) == "<hypernet:b/c:0.5:k=1>"
    assert str(only("<hypernet:a>").with_argument("start", "0.5")) == "<hypernet:a:1:start=0.5>"
    assert (
        str(only("<hypernet:a:0.5:start=0.1:k=2>").with_argument("start", "0.5"))
        == "<hypernet:a:0.5:k=2:start=0.5>"
    )


# Prompt editing


@pytest.mark.parametrize(
    ("prompt", "advice", "total", "on"),
    [
        ("[<hypernet:a:0.7>:0.5]", "<hypernet:a:0.7:start=0.5>", 5, [0, 0, 1, 1, 1]),
        ("[cat:<hypernet:a>:0.5]", "<hypernet:a:1:start=0.5>", 5, [0, 0, 1, 1, 1]),
        ("[<hypernet:a:1>:cat:0.25]", "<hypernet:a:1:stop=0.25>", 5, [1, 1, 0, 0, 0]),
        ("[<hypernet:a:1>::0.25]", "<hypernet:a:1:stop=0.25>", 5, [1, 1, 0, 0, 0]),
        ("[<hypernet:a:1>:2]", "<hypernet:a:1:start=3>", 5, [0, 0, 0, 1, 1]),
        ("[<hypernet:a:1>:cat:2]", "<hypernet:a:1:stop=2>", 5, [1, 1, 1, 0, 0]),
        ("[<hypernet:a:1>:1]", "<hypernet:a:1:start=2>", 5, [0, 0, 1, 1, 1]),
        ("[<hypernet:a:1>:cat:1]", "<hypernet:a:1:stop=1.5>", 5, [1, 1, 0, 0, 0]),
        ("[<hypernet:a:1>:cat:1.0]", "<hypernet:a:1:stop=1>", 5, [1, 1, 1, 1, 1]),
        ("[<hypernet:a:1>:-1]", "<hypernet:a:1:start=0>", 5, [1, 1, 1, 1, 1]),
        ("[cat:<hypernet:a:1>: -0.5 ]", "<hypernet:a:1:start=0>", 5, [1, 1, 1, 1, 1]),
        ("[<hypernet:a:1>:1e-1]", "<hypernet:a:1:start=0>", 5, [1, 1, 1, 1, 1]),
        ("[<hypernet:a:1>:+2]", "<hypernet:a:1:start=3>", 5, [0, 0, 0, 1, 1]),
        ("[<hypernet:a:1>:5e-1]", "<hypernet:a:1:start=0>", 5, [1, 1, 1, 1, 1]),
        ("[<hypernet:a:1>:2.]", "<hypernet:a:1:start=1>", 5, [0, 0, 0, 0, 1]),
        ("[<hypernet:a:1>:cat: .5 ]", "<hypernet:a:1:stop=0.5>", 5, [1, 1, 1, 0, 0]),
        ("[[<hypernet:a:1>]:0.5]", "<hypernet:a:1:start=0.5>", 5, [0, 0, 1, 1, 1]),
        ("[(very <hypernet:a:1>:1.2):0.5]", "<hypernet:a:1:start=0.5>", 5, [0, 0, 1, 1, 1]),
        ("[a [b:c:0.1] <hypernet:a:1>:0.5]", "<hypernet:a:1:start=0.5>", 5, [0, 0, 1, 1, 1]),
        ("[<lora:x:1> <hypernet:a:1>:0.5]", "<hypernet:a:1:start=0.5>", 5, [0, 0, 1, 1, 1]),
        ("[<hypernet:a:1:k=2>:0.5]", "<hypernet:a:1:k=2:start=0.5>", 5, [0, 0, 1, 1, 1]),
        (
            "[<hypernet:a:1>:" + "9" * 400 + "]",
            "<hypernet:a:1:start=1000000001>",
            5,
            [0, 0, 0, 0, 0],
        ),
    ],
)
def test_prompt_editing_is_answered_with_the_same_in_the_tag(
    prompt: str, advice: str, total: int, on: list[int]
) -> None:
    tag = only(prompt)
    assert tag.multiplier is None
    assert f"write {advice} outside the brackets" in str(tag.error)
    assert "prompt editing" in str(tag.error)
    advised = only(advice)
    assert advised.multiplier is not None
    assert [float(advised.multiplier.at(step, total) != 0) for step in range(total)] == on


@pytest.mark.parametrize("when", ["-1", "-0.5", "0", "-3e2"])
def test_a_half_that_editing_never_reaches(when: str) -> None:
    tag = only(f"[<hypernet:a:1>:cat:{when}]")
    assert tag.multiplier is None
    assert "remove the tag" in str(tag.error)


def test_both_halves_of_an_editing() -> None:
    _, (first, second) = parse("[<hypernet:a:1>:<hypernet:b:1>:0.5]")
    assert "<hypernet:a:1:stop=0.5>" in str(first.error)
    assert "<hypernet:b:1:start=0.5>" in str(second.error)


@pytest.mark.parametrize(
    "prompt", ["[<hypernet:a:1>|cat]", "[dog|<hypernet:a:1>|cat]", "x [(a|b)|<hypernet:a>] y"]
)
def test_alternation(prompt: str) -> None:
    tag = only(prompt)
    assert tag.multiplier is None
    assert "alternation" in str(tag.error)


@pytest.mark.parametrize(
    "prompt",
    [
        "[<hypernet:a:1>]",
        "(<hypernet:a:1>:1.2)",
        "[a:b:0.5] <hypernet:a:1>",
        "<hypernet:a:1> [a|b]",
        "[a|b] <hypernet:a:1> [c:0.5]",
        r"\[<hypernet:a:1>:0.5\]",
        r"\[<hypernet:a:1>|b]",
        "[<hypernet:a:1>:0.5",
        "<hypernet:a:1>:0.5]",
        "[<hypernet:a:1>:cat]",
        "[see: <hypernet:a:1>:b]",
    ],
)
def test_what_is_no_editing(prompt: str) -> None:
    assert only(prompt).error is None


def test_an_error_of_the_tag_comes_before_the_advice() -> None:
    assert "not a number" in str(only("[<hypernet:a:x>:0.5]").error)


# Blocks


def test_presets_are_those_of_lora_block_weight() -> None:
    expected = {
        "NONE": (), "ALL": BLOCKS_SD1, "INS": BLOCKS_SD1[:3], "IND": BLOCKS_SD1[3:6], "INALL": BLOCKS_SD1[:6],
        "MIDD": BLOCKS_SD1[3:11], "OUTD": BLOCKS_SD1[7:11], "OUTS": BLOCKS_SD1[11:], "OUTALL": BLOCKS_SD1[7:],
    }  # fmt: skip
    assert expected.keys() == BLOCK_PRESETS.keys()
    for preset, blocks in expected.items():
        factors = understood(f"1:lbw={preset}").block_factors(BLOCKS_SD1)
        assert factors == {block: float(block in blocks) for block in BLOCKS_SD1}


def test_names_of_blocks() -> None:
    assert BLOCKS_SD1[:7] == ("IN01", "IN02", "IN04", "IN05", "IN07", "IN08", "MID")
    assert BLOCKS_SD1[7:] == tuple(f"OUT{i:02d}" for i in range(3, 12))
    assert BLOCKS_SDXL == (
        "IN04",
        "IN05",
        "IN07",
        "IN08",
        "MID",
        "OUT00",
        "OUT01",
        "OUT02",
        "OUT03",
        "OUT04",
        "OUT05",
    )


@pytest.mark.parametrize("blocks", [BLOCKS_SD1, BLOCKS_SDXL])
@pytest.mark.parametrize("base", [True, False])
def test_numbers_go_to_the_blocks_in_order(blocks: tuple[str, ...], base: bool) -> None:
    numbers = [i / 10 for i in range(len(blocks))]
    text = ",".join(format_number(number) for number in ([99.0, *numbers] if base else numbers))
    for names in (blocks, blocks[::-1]):
        assert understood(f"1:lbw={text}").block_factors(names) == dict(
            zip(blocks, numbers, strict=True)
        )


@pytest.mark.parametrize(
    ("count", "blocks"), [(11, BLOCKS_SD1), (12, BLOCKS_SD1), (16, BLOCKS_SDXL), (17, BLOCKS_SDXL)]
)
def test_numbers_for_another_unet_are_a_tag_error(count: int, blocks: tuple[str, ...]) -> None:
    multiplier = understood("1:lbw=" + ",".join("1" * count))
    with pytest.raises(
        TagError, match=rf"{count} numbers.*{len(blocks)} blocks.*{len(blocks)} numbers"
    ):
        multiplier.block_factors(blocks)


@pytest.mark.parametrize(
    "blocks", [(), ("IN03", "MID"), (*BLOCKS_SD1, "OUT12"), ("OUT00", "OUT09")]
)
def test_unets_without_such_names_are_a_tag_error(blocks: tuple[str, ...]) -> None:
    with pytest.raises(TagError, match="leave it out"):
        understood("1:lbw=OUTALL").block_factors(blocks)
    for everywhere in ("1", "1:lbw=ALL"):
        assert understood(everywhere).block_factors(blocks) == dict.fromkeys(blocks, 1.0)


@pytest.mark.parametrize(
    ("preset", "acting"),
    [
        ("NONE", ""),
        ("ALL", "IN04 IN05 IN07 IN08 MID OUT00 OUT01 OUT02 OUT03 OUT04 OUT05"),
        ("INS", "IN04"),
        ("IND", "IN05 IN07 IN08"),
        ("INALL", "IN04 IN05 IN07 IN08"),
        ("MIDD", "IN05 IN07 IN08 MID OUT00 OUT01 OUT02 OUT03"),
        ("OUTD", "OUT00 OUT01 OUT02 OUT03"),
        ("OUTS", "OUT04 OUT05"),
        ("OUTALL", "OUT00 OUT01 OUT02 OUT03 OUT04 OUT05"),
    ],
)
def test_presets_on_sdxl_and_on_what_is_distilled_from_it(preset: str, acting: str) -> None:
    multiplier = understood(f"1:lbw={preset}")
    expected = {block: float(block in acting.split()) for block in BLOCKS_SDXL}
    assert multiplier.block_factors(BLOCKS_SDXL) == expected

    without_mid = tuple(block for block in BLOCKS_SDXL if block not in ("MID", "IN05", "OUT05"))
    assert multiplier.block_factors(without_mid) == {b: expected[b] for b in without_mid}


def test_numbers_on_a_distilled_unet_count_the_blocks_of_the_whole_one() -> None:
    numbers = [i / 10 for i in range(16)]
    multiplier = understood("1:lbw=" + ",".join(map(format_number, numbers)))
    whole = multiplier.block_factors(BLOCKS_SD1)
    here = tuple(block for block in BLOCKS_SD1 if block not in ("MID", "IN08", "OUT03"))
    assert multiplier.block_factors(here) == {block: whole[block] for block in here}


def test_the_tables_of_presets_in_the_docs() -> None:
    text = (Path(__file__).parents[3] / "docs" / "tags.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-Z]+) \| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
    assert {row[0] for row in rows} == set(BLOCK_PRESETS)
    for preset, *columns in rows:
        for column, blocks in zip(columns, (BLOCKS_SD1, BLOCKS_SDXL), strict=True):
            acting = [b for b, factor in preset_factors(preset, blocks).items() if factor]
            assert column.split() == (acting or ["none"]), preset


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        ("1:OUTD", "OUTD"),
        ("0.8:outall", "OUTALL"),
        ("1:" + ",".join("0" * 17), (0.0,) * 17),
        ("1: " + ";".join("1" * 11), (1.0,) * 11),
        ("1:k=0.5:INS", "INS"),
    ],
)
def test_block_factors_as_the_old_form_has_them(tail: str, expected: object) -> None:
    assert understood(tail).blocks == expected


@pytest.mark.parametrize(
    ("tail", "words"),
    [
        ("1:1:XYZ", ["XYZ", "lbw="]),
        ("1:OUTDD", ["OUTDD", "lbw="]),
        ("0.7:cross", ["cross", "attn="]),
        ("1:" + ",".join("0" * 13), ["0,0,0", "lbw="]),
        ("1:1,x" + ",1" * 14, ["list of numbers"]),
        ("1:OUTD:lbw=INS", ["OUTD", "both"]),
        ("1:INS:OUTS", ["OUTS", "both"]),
        ("1_0", ["1_0", "not a number"]),
        ("1:k=1_000", ["1_000", "not a number"]),
        ("0@0,1@1_0", ["1_0", "not a number"]),
    ],
)
def test_what_would_be_ignored_silently_is_an_error(tail: str, words: list[str]) -> None:
    error = str(only(f"<hypernet:a:{tail}>").error)
    assert all(word in error for word in words), error


@pytest.mark.parametrize(
    ("tail", "words"),
    [
        ("1:start=0.8:stop=0.2", ["start=0.8 is after stop=0.2"]),
        ("1:start=5:stop=2", ["start=5 is after stop=2"]),
        ("0@0,1@20:start=0.2:stop=0.8", ["fractions", "steps"]),
        ("0@0,1@20:stop=0.5", ["fractions", "steps"]),
        ("0@0.5,1@1:stop=0.5", ["0 everywhere", "widen"]),
        ("1@0,0@5,0@20:start=5", ["0 everywhere"]),
        ("0@0.5,1@1:hr=0@0.4,1@1:stop=0.3", ["0 everywhere"]),
    ],
)
def test_windows_that_never_act_are_errors(tail: str, words: list[str]) -> None:
    error = str(only(f"<hypernet:a:{tail}>").error)
    assert all(word in error for word in words), error


@pytest.mark.parametrize(
    "tail",
    [
        "1:start=0.5:stop=0.5",
        "0@0,1@20:start=1:stop=1",
        "0@0,1@20:stop=1",
        "0@0.5,1@1:stop=0.6",
        "0:start=0.2",
        "0@0,0@1:stop=0.5",
        "0:hr=0@0.5,1@1:stop=0.3",
        "0@0,1@1,0@0.5:start=0.5",
        "0:hr=1@0,1@30:start=0.2",
    ],
)
def test_windows_that_act_or_are_switched_off_are_none(tail: str) -> None:
    assert only(f"<hypernet:a:{tail}>").error is None


def test_advice_for_prompt_editing_is_a_tag_that_works() -> None:
    for prompt in ("[<hypernet:a:0@0,1@20>:0.5]", "[<hypernet:a:1:start=0.6>:b:0.3]"):
        error = str(only(prompt).error)
        assert "fractions" not in error
        for source in re.findall(r"write (<[^>]+>)", error):
            assert only(source).error is None


# Infotext

LETTERS = st.characters(codec="utf-8", categories=("L", "N", "P", "S"))
WORDS = st.text(LETTERS | st.sampled_from([",", ":", '"', "\\", "<", ">", " "]), max_size=30).map(
    str.strip
)
LINES = st.lists(WORDS, min_size=1, max_size=3).map(lambda lines: "\n".join(lines).strip())
KEYS = st.from_regex(r"[A-Za-z][A-Za-z0-9 /-]{0,12}[a-z0-9]", fullmatch=True)


@settings(max_examples=200)
@given(
    prompt=LINES,
    negative=LINES,
    pairs=st.dictionaries(KEYS, st.one_of(WORDS, LINES), min_size=3, max_size=8),
)
def test_infotext_round_trip(prompt: str, negative: str, pairs: dict[str, str]) -> None:
    text = format_infotext(prompt, negative, pairs)
    if not any(line.startswith("Negative prompt:") for line in f"{prompt}\n{negative}".split("\n")):
        assert parse_infotext(text) == (prompt, negative, pairs)


def test_tags_survive_the_infotext() -> None:
    prompt = "a cat <hypernet:my ink:0@0,1@0.5:hr=0.4:lbw=OUTALL>, <hypernet:b:1>"
    pairs = {"Steps": 20, "Sampler": "DDIM", "Seed": 1, "Hypernetworks": "my ink: 1234, b: 5678"}
    text = format_infotext(prompt, "ugly", pairs)
    assert text.split("\n")[0] == prompt
    assert parse_infotext(text) == (
        prompt,
        "ugly",
        {key: str(value) for key, value in pairs.items()},
    )
    assert [tag.error for tag in parse(parse_infotext(text)[0])[1]] == [None, None]


def test_the_webuis_own_infotext() -> None:
    text = (
        "a cat, (fluffy:1.2)\nsecond line <hypernet:anime_3(63a0e9f7):0.9>\n"
        "Negative prompt: bad, worse\nworst\n"
        "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1234, Size: 512x512, "
        'Model: "v1, 5: \\"final\\"", Version: v1.10.1'
    )
    prompt, negative, pairs = parse_infotext(text)
    assert prompt == "a cat, (fluffy:1.2)\nsecond line <hypernet:anime_3(63a0e9f7):0.9>"
    assert negative == "bad, worse\nworst"
    assert pairs["Model"] == 'v1, 5: "final"'
    assert (pairs["CFG scale"], pairs["Size"], pairs["Version"]) == ("7", "512x512", "v1.10.1")


@pytest.mark.parametrize(
    ("piece", "pairs"),
    [
        ("DPM++ SDE r: 0.3", {"DPM++ SDE r": "0.3"}),
        ("(odd) key : 1", {"(odd) key": "1"}),
        ("K: 1", {"K": "1"}),
        ("a bare key", {"a bare key": ""}),
        ('He said "a, b: c", x', {'He said "a, b: c"': "", "x": ""}),
        ('an " alone', {'an " alone': ""}),
        ('Note: "a, b" and c', {"Note": '"a, b" and c'}),
        ('Note: "a, b" ', {"Note": "a, b"}),
        (": 3", {": 3": ""}),
        ("Seed", {}),
        (", ,", {}),
    ],
)
def test_whatever_stands_between_the_settings_the_rest_is_read(
    piece: str, pairs: dict[str, str]
) -> None:
    text = f'a cat\nSteps: 20, Sampler: Euler, Seed: 1, {piece}, Template: "x, y: z", Version: v1'
    usual = {"Steps": "20", "Sampler": "Euler", "Seed": "1"}
    after = {"Template": "x, y: z", "Version": "v1"}
    if piece == 'an " alone':  # it is closed by the next one
        after, pairs = {"y": 'z"', "Version": "v1"}, {'an " alone, Template: "x': ""}
    assert parse_infotext(text) == ("a cat", "", usual | pairs | after)


def test_steps_begin_the_settings_whatever_follows() -> None:
    text = "a cat\nSteps: 20, DPM++ SDE r: 0.3, Sampler: Euler, Seed: 1"
    assert parse_infotext(text)[2].keys() == {"Steps", "DPM++ SDE r", "Sampler", "Seed"}


@pytest.mark.parametrize(
    "prompt",
    [
        "a cat: sitting, a dog",
        "(red:1.2), (green:1.1), (blue:1.3), (grey: 1)",
        "a cat, mood: calm, colour: red, light: soft",
        "Steps: up, down, left, right",
    ],
)
def test_a_prompt_alone_is_no_settings(prompt: str) -> None:
    assert parse_infotext(prompt) == (prompt, "", {})
    weighted = "(worst quality:1.4), (low quality:1.4), (blurry:1.2), (dark: 1)"
    found = parse_infotext(f"{prompt}\nNegative prompt: {weighted}")
    assert found == (prompt, weighted, {})


def test_a_number_is_read_as_it_is_written() -> None:
    assert math.isclose(parse_number("0.1"), 0.1)


def test_infotexts_take_a_time_that_grows_with_their_length() -> None:
    signs = random.Random(1)
    texts = [
        *("".join(signs.choices(',":\\ a[{', k=200_000)) for _ in range(3)),
        *(piece * (200_000 // len(piece)) for piece in ('",:', '\\"', 'a: "', '" ,', 'a:"x"y,')),
        *(f'Steps: 1, a: 1, b: 2, "{piece * 60_000}' for piece in ('\\",', ',a:\\"', '\\"\\"')),
        "a:" + " " * 200_000 + "(",
    ]
    for text in texts:
        began = time.process_time()
        parse_infotext(f"a\n{text}")
        assert time.process_time() - began < 2
