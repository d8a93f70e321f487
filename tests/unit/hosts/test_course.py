"""A training that loses its way goes back, and on with smaller steps."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from hypernetworks.hosts.diffusers.conversion.course import (
    CHECKED,
    MOST_RETURNS,
    PATIENCE,
    SMALLER,
    Course,
)


class Walk:
    """One number that a training moves away from 0 at its rate; the error tells how far from 1."""

    def __init__(self, error: Callable[[float], float], rate: float) -> None:
        self.parameter = torch.zeros(1, requires_grad=True)
        self.course = Course([self.parameter], lambda: error(self.parameter.item()), rate)

    def go(self, steps: int = CHECKED) -> bool:
        """So many steps; whether none of them led back."""
        found = True
        for _ in range(steps):
            with torch.no_grad():
                self.parameter += self.course.rate
            found &= self.course.goes_on()
        return found


def test_a_training_that_gets_better_is_left_alone() -> None:
    walk = Walk(lambda x: abs(1 - x), 0.01)
    assert not walk.course.has_gained
    assert walk.go(100)
    assert walk.course.has_gained
    assert walk.course.rate == 0.01
    walk.course.finish()
    assert walk.parameter.item() == pytest.approx(1)


def test_steps_that_are_too_large_are_undone_and_become_smaller() -> None:
    walk = Walk(lambda x: abs(1 - x), 0.2)
    assert not walk.go()  # at 4, which is 3 away instead of 1
    assert walk.parameter.item() == 0
    assert walk.course.rate == 0.2 / SMALLER
    assert walk.course.steps == 0

    assert walk.go()
    walk.course.finish()
    assert walk.parameter.item() == pytest.approx(0.2 / SMALLER * CHECKED)


def test_a_training_that_never_gains_is_begun_again_and_one_that_has_gained_may_rest() -> None:
    still = Walk(lambda _: 1.0, 0.1)
    assert still.go(PATIENCE * CHECKED - 1)
    assert not still.go(1)

    gained = Walk(lambda x: max(1 - x, 0.5), 0.1)
    assert gained.go(5 * PATIENCE * CHECKED)


def test_ups_and_downs_are_part_of_a_training() -> None:
    """Measured on 16 images, errors of one that goes well rise to more than 1.5 of the best."""
    errors = iter([1.0, 0.1, 0.3, 0.9, 0.08])
    walk = Walk(lambda _: next(errors), 0.1)
    assert walk.go(4 * CHECKED)
    assert walk.course.best == 0.08


@pytest.mark.parametrize("error", [math.nan, math.inf])
def test_errors_that_are_no_numbers_lead_back(error: float) -> None:
    walk = Walk(lambda x: error if x > 0.5 else 1 - x, 0.1)
    assert not walk.go()
    assert walk.parameter.item() == 0


def test_the_best_state_is_what_comes_out() -> None:
    walk = Walk(lambda x: abs(1 - x), 0.05)
    assert walk.go()
    walk.go(7)  # past the best, and no check is due
    walk.course.finish()
    assert walk.parameter.item() == pytest.approx(1)


def test_it_gives_up_in_the_end() -> None:
    walk = Walk(lambda _: 1.0, 0.1)
    for _ in range(MOST_RETURNS + 1):
        assert not walk.course.is_lost
        walk.go(PATIENCE * CHECKED)
    assert walk.course.is_lost
