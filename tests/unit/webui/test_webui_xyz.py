"""The axes of the X/Y/Z plot: what they make of a prompt, in any order, and that a sweep reads each
file once."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from copy import copy
from itertools import permutations
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fake_webui import HOSTS, FakeWebui
from unit.library.test_library import add, network

import hypernetworks as hn
from hypernetworks.errors import AmbiguousNameError, MultiplierError, UnknownNameError
from hypernetworks.hosts.webui import folders, xyz

NAME, MULTIPLIER, SCHEDULE = xyz.NAME, xyz.MULTIPLIER, xyz.SCHEDULE
every_host = pytest.mark.parametrize("fake_webui", HOSTS, indirect=True)


def job(webui: FakeWebui, prompt: object, **fields: object) -> Any:
    """A job of the webui."""
    return webui.module("processing").StableDiffusionProcessing(prompt, **fields)


def plot(webui: FakeWebui) -> Any:
    """The script, as the page has built it."""
    module = webui.load_xyz()
    xyz.register()
    script = module.Script()
    script.ui(False)
    return script


def prompts(
    webui: FakeWebui, prompt: str, *axes: tuple[str, list[Any]], **fields: object
) -> list[Any]:
    """The prompts of all cells."""
    return plot(webui).run(job(webui, prompt, **fields), axes, lambda pc: pc.prompt)  # type: ignore[no-any-return]


# Registering


@every_host
def test_the_axes_are_added_once(fake_webui: FakeWebui) -> None:
    module = fake_webui.load_xyz()
    for _ in range(3):
        xyz.register()
    assert [option.label for option in module.axis_options] == [
        "Nothing",
        "Seed",
        NAME,
        MULTIPLIER,
        SCHEDULE,
    ]
    assert all(type(option) is module.AxisOption for option in module.axis_options), (
        "what both tabs show"
    )


def test_after_a_reload_of_scripts_and_with_two_plots(fake_webui: FakeWebui) -> None:
    modules = [fake_webui.load_xyz(), fake_webui.load_xyz()]
    scripts = fake_webui.module("scripts").scripts_data
    scripts.append(
        scripts[0]._replace(script_class=object)
    )  # a module with several classes comes several times
    xyz.register()
    assert [len(module.axis_options) for module in modules] == [5, 5]
    scripts.clear()
    reloaded = fake_webui.load_xyz()
    xyz.register()
    assert len(reloaded.axis_options) == 5


def test_without_a_plot(fake_webui: FakeWebui) -> None:
    xyz.register()


@every_host
def test_the_menu_of_names(fake_webui: FakeWebui) -> None:
    add(fake_webui.folder, "ink.pt", "a/x.pt", "b/x.safetensors")
    name = next(option for option in plot(fake_webui).current_axis_options if option.label == NAME)
    assert name.choices() == ["None", "a/x", "b/x", "ink"]
    add(fake_webui.folder, "later.pt")
    folders.refresh()
    assert "later" in name.choices()


# What an axis makes of a prompt


@every_host
@pytest.mark.parametrize(
    ("prompt", "name", "expected"),
    [
        ("a cat", "ink", "a cat <hypernet:ink:1>"),
        ("a cat ", "ink", "a cat <hypernet:ink:1>"),
        ("a cat\n", "ink", "a cat\n<hypernet:ink:1>"),
        ("a cat", "None", "a cat"),
        ("a cat <hypernet:x>", "None", "a cat"),
        ("<hypernet:x> a cat", "None", "a cat"),
        ("a <hypernet:x>, cat", "None", "a , cat"),
        ("a\n<hypernet:x> cat", "None", "a\ncat"),
        ("", "ink", "<hypernet:ink:1>"),
        (
            "a <hypernet:x:0.70:hr=.5> cat <hypernet:y>",
            "ink",
            "a <hypernet:ink:0.70:hr=.5> cat <hypernet:y>",
        ),
        ("a <hypernet:x:0.70> cat <hypernet:y>", "none", "a cat <hypernet:y>"),
        ("a <hypernet:x> <hypernet:x>", "ink", "a <hypernet:ink> <hypernet:x>"),
        ("<lora:x:1> a", "ink", "<lora:x:1> a <hypernet:ink:1>"),
        ("a <hypernet:x:oops>", "a/x, y", "a <hypernet:a/x, y:oops>"),
    ],
)
def test_names(prompt: str, name: str, expected: str, fake_webui: FakeWebui) -> None:
    add(fake_webui.folder, "ink.pt", "a/x, y.pt")
    assert prompts(fake_webui, prompt, (NAME, [name])) == [expected]


@pytest.fixture
def comments(fake_webui: FakeWebui, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's own module that takes comments out of prompts."""
    package, module = ModuleType("modules.processing_scripts"), ModuleType("comments")
    module.strip_comments = lambda text: re.sub(r"#[^\n]*(\n|$)", "\n", text)  # type: ignore[attr-defined]
    package.comments = module  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modules.processing_scripts", package)
    monkeypatch.setitem(sys.modules, "modules.processing_scripts.comments", module)


@pytest.mark.usefixtures("comments")
@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("# <hypernet:oil:0.5>\na cat", "\na cat <hypernet:ink:1>"),
        ("a cat, #1 quality", "a cat, \n<hypernet:ink:1>"),
        ("a cat # <hypernet:oil:0.5>\n<hypernet:pen:2>", "a cat \n<hypernet:ink:2>"),
        ("# mine\na cat <hypernet:oil:0.5>", "# mine\na cat <hypernet:ink:0.5>"),
    ],
)
def test_names_in_comments_do_not_count(prompt: str, expected: str, fake_webui: FakeWebui) -> None:
    add(fake_webui.folder, "ink.pt")
    assert prompts(fake_webui, prompt, (NAME, ["ink"])) == [expected]
    fake_webui.shared.opts.data["enable_prompt_comments"] = False
    assert prompts(fake_webui, prompt, (NAME, ["ink"]))[0].count("#") == 1


def test_a_tag_that_is_added_has_the_hosts_default_multiplier(fake_webui: FakeWebui) -> None:
    add(fake_webui.folder, "ink.pt")
    fake_webui.shared.opts.data["extra_networks_default_multiplier"] = 0.75
    assert prompts(fake_webui, "a", (NAME, ["ink"])) == ["a <hypernet:ink:0.75>"]


@every_host
@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (
            "a <hypernet:x:0.70:hr=.5> <lora:x:1>, <hypernet:y>",
            "a <hypernet:x:{}:hr=.5> <lora:x:1>, <hypernet:y:{}>",
        ),
        ("a <hypernet:x:start=0.5>", "a <hypernet:x:{}:start=0.5>"),
        ("a cat", "a cat"),
    ],
)
def test_multipliers_and_schedules(prompt: str, expected: str, fake_webui: FakeWebui) -> None:
    assert prompts(fake_webui, prompt, (MULTIPLIER, ["0", "0.5", "-1.25"])) == [
        expected.format(text, text) for text in ("0", "0.5", "-1.25")
    ]
    assert prompts(fake_webui, prompt, (SCHEDULE, ["0@0;1@1", "None", "0.3"])) == [
        expected.format("0@0,1@1", "0@0,1@1"),
        prompt,
        expected.format("0.3", "0.3"),
    ]


def test_a_schedule_is_scaled_by_a_multiplier(fake_webui: FakeWebui) -> None:
    found = prompts(
        fake_webui, "<hypernet:x>", (SCHEDULE, ["0@0;1@10", "none"]), (MULTIPLIER, [0.5, -0.1])
    )
    assert found == [
        *("<hypernet:x:0@0,0.5@10>", "<hypernet:x:0@0,-0.1@10>"),
        *("<hypernet:x:0.5>", "<hypernet:x:-0.1>"),
    ]


@pytest.mark.parametrize(
    "prompt", ["a cat", "a <hypernet:x:0.3:k=1> cat", "<hypernet:x><hypernet:y:2>"]
)
@pytest.mark.parametrize("name", ["ink", "None"])
@pytest.mark.parametrize("schedule", ["0.5@0;1@1", "none"])
def test_axes_in_any_order(prompt: str, name: str, schedule: str, fake_webui: FakeWebui) -> None:
    add(fake_webui.folder, "ink.pt")
    axes = [(NAME, [name]), (MULTIPLIER, [0.5]), (SCHEDULE, [schedule])]
    for some in (axes, axes[:2], axes[::2], axes[1:]):
        found = {tuple(prompts(fake_webui, prompt, *order)) for order in permutations(some)}
        assert len(found) == 1, found
    if prompt == "a cat" and name == "ink" and schedule == "none":
        assert found == {("a cat",)}, "no name, no tag"
        assert prompts(fake_webui, prompt, *axes[1::-1]) == ["a cat <hypernet:ink:0.5>"]


def test_cells_do_not_see_one_another(fake_webui: FakeWebui) -> None:
    add(fake_webui.folder, "ink.pt")
    p = job(fake_webui, "a")
    found = plot(fake_webui).run(
        p, [(MULTIPLIER, [1, 2]), (NAME, ["None", "ink"])], lambda pc: pc.prompt
    )
    assert found == ["a", "a", "a <hypernet:ink:1>", "a <hypernet:ink:2>"]
    assert p.prompt == "a"
    assert not any("hypernet" in name for name in vars(p))


# Which prompts


def test_lists_of_prompts(fake_webui: FakeWebui) -> None:
    add(fake_webui.folder, "ink.pt")
    p = job(fake_webui, ["a", "b <hypernet:x:2>"])
    before = p.prompt
    found = plot(fake_webui).run(p, [(NAME, ["ink"]), (MULTIPLIER, [0.5])], lambda pc: pc.prompt)
    assert found == [["a <hypernet:ink:0.5>", "b <hypernet:ink:0.5>"]]
    assert p.prompt is before
    assert before == ["a", "b <hypernet:x:2>"]


@pytest.mark.parametrize("field", ["hr_prompt", "refiner_prompt"])
def test_the_prompt_of_a_later_pass(field: str, fake_webui: FakeWebui) -> None:
    add(fake_webui.folder, "ink.pt")

    def later(prompt: object) -> object:
        p = job(fake_webui, "a <hypernet:x>", **{field: prompt})
        axes = [(NAME, ["ink"]), (MULTIPLIER, [0.5])]
        return plot(fake_webui).run(p, axes, lambda pc: getattr(pc, field))[0]

    assert later("b <hypernet:y:2:k=0> c") == "b <hypernet:ink:0.5:k=0> c"
    assert later(["b <hypernet:y:2>", "c"]) == ["b <hypernet:ink:0.5>", "c"]
    assert later("no tag") == "no tag"
    assert later("") == ""
    assert later(None) is None


def test_negative_prompts_are_left_alone(fake_webui: FakeWebui) -> None:
    add(fake_webui.folder, "ink.pt")
    p = job(fake_webui, "a", negative_prompt="b <hypernet:y>")
    assert plot(fake_webui).run(p, [(NAME, ["ink"])], lambda pc: pc.negative_prompt) == [
        "b <hypernet:y>"
    ]


def test_prompts_that_were_prepared_before_do_not_count(fake_webui: FakeWebui) -> None:
    p = job(fake_webui, "a <hypernet:x>", all_prompts=["a <hypernet:x>"])
    assert plot(fake_webui).run(p, [(MULTIPLIER, [2])], lambda pc: pc.all_prompts) == [None]


# What is refused before the first picture


@every_host
@pytest.mark.parametrize(
    ("axis", "values", "error", "message"),
    [
        (NAME, ["ink", "imk"], UnknownNameError, "did you mean ink"),
        (NAME, ["twice"], AmbiguousNameError, "a/twice or b/twice"),
        (MULTIPLIER, ["nan"], MultiplierError, "not a finite number"),
        (MULTIPLIER, ["inf"], MultiplierError, "not a finite number"),
        (SCHEDULE, ["0@0;1"], MultiplierError, "has no position"),
        (SCHEDULE, ["1:start=0.5"], MultiplierError, "not a number"),
    ],
)
def test_refusals(
    axis: str, values: list[str], error: type[Exception], message: str, fake_webui: FakeWebui
) -> None:
    add(fake_webui.folder, "ink.pt", "a/twice.pt", "b/twice.pt")
    drawn: list[object] = []
    with pytest.raises(error, match=message):
        plot(fake_webui).run(job(fake_webui, "a <hypernet:ink>"), [(axis, values)], drawn.append)
    assert drawn == []


def test_what_is_not_refused(fake_webui: FakeWebui) -> None:
    add(fake_webui.folder, "ink.pt", "a/twice.pt", "b/twice.pt")
    axes = [(NAME, ["INK", "None", "", "a/twice"]), (SCHEDULE, ["none", "", "0.5"])]
    assert len(prompts(fake_webui, "a", *axes)) == 12


# Reading


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_each_file_is_read_once_in_a_sweep(
    order: tuple[int, ...], fake_webui: FakeWebui, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("a.pt", "sub/b.safetensors", "c.pt")):
        network(fake_webui.folder / name, seed=number)
    reads = counted_reads(monkeypatch)
    fake_webui.shared.opts.data["hypernetworks_cache_mb"] = 0  # room for one, whatever it is

    def draw(pc: Any) -> float:
        (tag,) = hn.parse(pc.prompt)[1]
        folders.library().load(folders.library().find(tag.name))
        assert tag.multiplier is not None
        return tag.multiplier.at(0, 2)

    axes = [(NAME, ["a", "b", "c"]), (MULTIPLIER, [0, 0.5, 1]), (SCHEDULE, ["1@0;0@1", "none"])]
    drawn = plot(fake_webui).run(job(fake_webui, "x <hypernet:a>"), [axes[i] for i in order], draw)
    assert len(drawn) == 18
    assert sorted(path.name for path in reads) == ["a.pt", "b.safetensors", "c.pt"]


def counted_reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every file that the library reads from now on."""
    from hypernetworks.library import folders as library_folders

    reads: list[Path] = []
    original: Callable[[Path], hn.Hypernetwork] = library_folders.read

    def read(path: Path) -> hn.Hypernetwork:
        reads.append(path)
        return original(path)

    monkeypatch.setattr(library_folders, "read", read)
    return reads


def test_copies_of_a_job_share_nothing(fake_webui: FakeWebui) -> None:
    p = job(fake_webui, "a")
    xyz.apply_multiplier(p, 0.5, [])
    other = copy(p)
    xyz.apply_multiplier(other, 2.0, [])
    xyz.apply_name(p, "ink", [])
    xyz.apply_name(other, "ink", [])
    assert (p.prompt, other.prompt) == ("a <hypernet:ink:0.5>", "a <hypernet:ink:2>")
