"""The X/Y/Z plot: axes, and the loop over them."""

from copy import copy

from modules import HOST, scripts


def format_value_add_label(p, opt, x):
    """What stands beside a row."""
    return f"{opt.label}: {x}"


def do_nothing(p, x, xs):
    """No change."""


if HOST == "sdnext":

    class AxisOption:
        """What a row or a column changes."""

        def __init__(
            self,
            label,
            tipe,
            apply,
            fmt=format_value_add_label,
            confirm=None,
            cost=0.0,
            choices=None,
        ):
            self.label, self.type, self.apply, self.format_value = label, tipe, apply, fmt
            self.confirm, self.cost, self.choices = confirm, cost, choices

else:

    class AxisOption:  # type: ignore[no-redef]
        """What a row or a column changes."""

        def __init__(
            self,
            label,
            type,  # noqa: A002
            apply,
            format_value=format_value_add_label,
            confirm=None,
            cost=0.0,
            choices=None,
            prepare=None,
        ):
            self.label, self.type, self.apply, self.format_value = label, type, apply, format_value
            self.confirm, self.cost, self.choices, self.prepare = confirm, cost, choices, prepare


axis_options = [AxisOption("Nothing", str, do_nothing), AxisOption("Seed", int, do_nothing)]


class Script(scripts.Script):
    """The plot."""

    def title(self):
        """Its name."""
        return "X/Y/Z plot"

    def ui(self, is_img2img):
        """Remembers the axes that there are now."""
        self.current_axis_options = [
            option for option in axis_options if type(option) is AxisOption
        ]
        return []

    def run(self, p, axes, draw):
        """``draw(job)`` for each cell; the axis with the highest cost changes least often.

        Args:
            axes: pairs of an axis' label and its values, in the order in which they are applied to
                a job.
        """
        known = {option.label: option for option in self.current_axis_options}
        chosen = [(known[label], [known[label].type(x) for x in values]) for label, values in axes]
        for option, values in chosen:
            if option.confirm:
                option.confirm(p, values)
        cells: list[dict] = [{}]
        for option, values in sorted(chosen, key=lambda pair: -pair[0].cost):
            cells = [{**cell, option.label: x} for cell in cells for x in values]
        results = []
        for cell in cells:
            pc = copy(p)
            pc.styles = pc.styles[:]
            for option, values in chosen:
                option.apply(pc, cell[option.label], values)
            results.append(draw(pc))
        return results
