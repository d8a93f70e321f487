"""The fields of the Compare tab that say what is compared, and how they are filled in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..cards import choices
from ..comparing.axes import BLOCK_OFF, BLOCKS, CHECKPOINT, KINDS, MULTIPLIER, NETWORK, SAMPLER
from ..comparing.working import model_blocks
from ..job_queue import JobQueue
from ..models import samplers
from ..widgets import PRIVATE

NONE = "Nothing"
LONGEST_VALUES = 20_000
"""Characters of an axis that are restored."""
_FILLED = (NETWORK, SAMPLER, BLOCKS, BLOCK_OFF)
"""Kinds that have a list of all their values."""


@dataclass(frozen=True)
class Axes:
    """The fields that say what is compared.

    Attributes:
        fields: kind and values of columns, rows and pages; last, whether there is a column without
            the networks.
        buttons: that fill in all values of an axis.
        submits: events of Enter in the values.
    """

    fields: list[gr.components.Component]
    buttons: list[gr.components.Component]
    submits: list[Any]

    @property
    def outputs(self) -> list[gr.components.Component]:
        """All of them."""
        return [*self.fields, *self.buttons]


def axes_fields(job_queue: JobQueue) -> Axes:
    """Add the fields to the Blocks that are being built."""
    axes = [
        _axis(job_queue, "x", "Columns", MULTIPLIER, "0, 0.25, 0.5, 0.75, 1"),
        _axis(job_queue, "y", "Rows", NETWORK, ""),
        _axis(job_queue, "z", "Pages", NONE, ""),
    ]
    without = gr.Checkbox(
        False, label="Begin with a column without the networks", elem_id="compare_without"
    )

    fields = [field for kind, values, _ in axes for field in (kind, values)]
    buttons: list[gr.components.Component] = [fill for *_, fill in axes]
    return Axes([*fields, without], buttons, [values.submit for _, values, _ in axes])


def for_one_network(name: str) -> tuple[Any, ...]:
    """Values of :attr:`Axes.outputs` that compare multipliers of one network."""
    typed = f'"{name}"' if "," in name else name
    kinds = ((MULTIPLIER, "0, 0.25, 0.5, 0.75, 1"), (NETWORK, typed), (NONE, ""))
    return _axes_values(kinds, gr.skip())


def for_run(name: str) -> tuple[Any, ...]:
    """Values of :attr:`Axes.outputs` that compare the saved steps of a training run."""
    return _axes_values(((CHECKPOINT, name), (NONE, ""), (NONE, "")), gr.skip())


def restored_axes(given: dict[str, Any]) -> tuple[Any, ...]:
    """Values of :attr:`Axes.outputs` as a page had them before it was loaded again.

    Args:
        given: what the page has saved, by the fields' names; anything may be in it.
    """
    kinds: list[tuple[str, str] | None] = []
    for axis in "xyz":
        # Saved by this browser, perhaps for another version: what is not known is left out.
        kind, typed = given.get(f"compare_{axis}"), given.get(f"compare_{axis}_values")
        is_usable = kind in (NONE, *KINDS) and isinstance(typed, str)
        kinds.append((str(kind), str(typed)[:LONGEST_VALUES]) if is_usable else None)

    without = given.get("compare_without")
    return _axes_values(kinds, without if isinstance(without, bool) else gr.skip())


def _axes_values(kinds: Sequence[tuple[str, str] | None], without: Any) -> tuple[Any, ...]:
    """Kinds and their values, then the tick, then the buttons; ``None`` leaves an axis alone."""
    fields, buttons = list[Any](), list[Any]()
    for axis in kinds:
        if axis is None:
            fields += [gr.skip(), gr.skip()]
            buttons.append(gr.skip())
            continue
        kind, typed = axis
        example = KINDS[kind].example if kind in KINDS else ""
        fields += [kind, gr.update(value=typed, placeholder=example, visible=kind in KINDS)]
        buttons.append(gr.update(visible=kind in _FILLED))
    return (*fields, without, *buttons)


def _axis(
    job_queue: JobQueue, name: str, label: str, kind: str, value: str
) -> tuple[gr.Dropdown, gr.Textbox, gr.Button]:
    """What is compared along one direction, its values, and a button that fills in all of them."""
    with gr.Row(elem_classes="studio-axis"):
        chosen = gr.Dropdown(
            [NONE, *KINDS],
            value=kind,
            label=label,
            elem_id=f"compare_{name}",
            scale=2,
            min_width=165,
        )
        values = gr.Textbox(
            value,
            label=f"Values of the {label.lower()}",
            placeholder=KINDS[kind].example if kind in KINDS else "",
            elem_id=f"compare_{name}_values",
            scale=5,
            min_width=160,
            visible=kind != NONE,
        )
        fill = gr.Button(
            "All",
            size="sm",
            elem_id=f"compare_{name}_all",
            scale=0,
            min_width=56,
            visible=kind in _FILLED,
        )

    def change(kind: str) -> tuple[Any, Any]:
        _, shown, _, button = _axes_values([(kind, "")], None)
        return shown, button

    chosen.input(change, chosen, [values, fill], queue=False, **PRIVATE)
    fill.click(lambda kind: _all_values(job_queue, kind), chosen, values, queue=False, **PRIVATE)
    return chosen, values, fill


def _all_values(job_queue: JobQueue, kind: str) -> str:
    from ...engine.blocks import BLOCK_PRESETS

    found: dict[str, Callable[[], Sequence[str]]] = {
        NETWORK: lambda: choices(job_queue.library)[:100],
        SAMPLER: lambda: samplers(job_queue),
        BLOCKS: lambda: list(BLOCK_PRESETS),
        BLOCK_OFF: lambda: model_blocks(job_queue.painter),
    }
    names = found[kind]() if kind in found else []
    return ", ".join(f'"{name}"' if "," in name else name for name in names)
