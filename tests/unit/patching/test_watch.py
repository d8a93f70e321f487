"""When a change of a weight on an accelerator is seen, on a device that is emulated."""

from __future__ import annotations

import pytest
import torch

from hypernetworks.patching import watch
from hypernetworks.patching.watch import WeightWatch


class Device:
    """One that is busy or not, and answers when it has nothing else to do.

    Attributes:
        waited: how often the program waited for it.
    """

    def __init__(self) -> None:
        self.is_busy, self.waited = False, 0

    def event(self, _: torch.device) -> Device:
        """An event that comes when the device has nothing to do."""
        return self

    def record(self) -> None:
        """It comes last."""

    def query(self) -> bool:
        """Whether it has come."""
        return not self.is_busy

    def synchronize(self) -> None:
        """Wait for it."""
        self.waited += 1
        self.is_busy = False


class Mark:
    """Of a weight whose one number is looked at."""

    def __init__(self) -> None:
        self.now = torch.zeros(1)
        self.sample = torch.zeros(1)
        self.drawn = 0

    def drawn_again(self) -> torch.Tensor:
        """The number as it is now."""
        self.drawn += 1
        return self.now.clone()


class Clock:
    """Stands for the module ``time``."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        """Seconds."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """One that stands still."""
    made = Clock()
    monkeypatch.setattr(watch, "time", made)
    return made


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    """What stands for the card."""
    made = Device()
    monkeypatch.setattr(watch, "_event", made.event)
    monkeypatch.setattr(watch, "_pinned", lambda: torch.empty((), dtype=torch.bool))
    return made


def test_a_change_between_two_generations_is_seen_in_the_next_call(device: Device) -> None:
    watched, mark = WeightWatch(), Mark()
    watched.end(torch.device("cuda"))
    assert not watched.saw_change([mark])
    watched.end(torch.device("cuda"))
    mark.now.fill_(1)
    assert watched.saw_change([mark])


def test_a_busy_device_is_not_waited_for(device: Device) -> None:
    watched, mark = WeightWatch(), Mark()
    watched.end(torch.device("cuda"))
    device.is_busy = True
    mark.now.fill_(1)
    assert not watched.saw_change([mark])
    watched.end(torch.device("cuda"))
    assert device.waited == 0

    device.is_busy = False
    assert watched.saw_change([mark]), "one call late"


def calls(watched: WeightWatch, marks: list[Mark], count: int) -> list[bool]:
    """What is seen in so many calls."""
    found = []
    for _ in range(count):
        found.append(watched.saw_change(marks))
        watched.end(torch.device("cuda"))
    return found


def test_from_step_to_step_a_part_of_the_weights_is_looked_at(device: Device, clock: Clock) -> None:
    watched, marks = WeightWatch(), [Mark() for _ in range(20)]
    assert calls(watched, marks, 1) == [False]
    assert {mark.drawn for mark in marks} == {1}

    assert not any(calls(watched, marks, 8))
    assert {mark.drawn for mark in marks} == {2}, "each once in eight calls"
    clock.now += 1
    assert calls(watched, marks, 1) == [False]
    assert {mark.drawn for mark in marks} == {3}, "all of them between two generations"


def test_a_write_to_all_weights_is_seen_at_the_next_step(device: Device, clock: Clock) -> None:
    watched, marks = WeightWatch(), [Mark() for _ in range(20)]
    assert not any(calls(watched, marks, 12))
    for mark in marks:
        mark.now.fill_(1)
    assert calls(watched, marks, 1) == [True]


@pytest.mark.parametrize("which", range(20))
def test_a_write_to_one_weight_is_seen_within_eight_steps(
    device: Device, clock: Clock, which: int
) -> None:
    watched, marks = WeightWatch(), [Mark() for _ in range(20)]
    assert not any(calls(watched, marks, 3))
    marks[which].now.fill_(1)
    assert calls(watched, marks, 8).count(True) == 1

    # and at once between two generations
    clock.now += 1
    assert calls(watched, marks, 1) == [True]


def test_a_few_weights_are_all_looked_at(device: Device, clock: Clock) -> None:
    watched, marks = WeightWatch(), [Mark() for _ in range(8)]
    assert not any(calls(watched, marks, 3))
    marks[5].now.fill_(1)
    assert calls(watched, marks, 2) == [True, True]


def test_other_weights_are_compared_with_their_own_numbers(device: Device, clock: Clock) -> None:
    watched, marks = WeightWatch(), [Mark() for _ in range(20)]
    assert not any(calls(watched, marks, 12))
    # folded anew, after a change
    others = [Mark() for _ in range(20)]
    for mark in others:
        mark.now, mark.sample = torch.ones(1), torch.ones(1)
    assert not any(calls(watched, others, 12))
    assert any(calls(watched, [*others[:-1], marks[0]], 1)) is False
    marks[0].now.fill_(1)
    assert any(calls(watched, [*others[:-1], marks[0]], 8))


def test_nothing_is_asked_while_a_graph_is_recorded(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched, mark = WeightWatch(), Mark()
    watched.end(torch.device("cuda"))
    device.is_busy = True
    mark.now.fill_(1)
    watched.saw_change([mark])

    monkeypatch.setattr(watch, "_is_capturing", lambda: True)
    monkeypatch.setattr(Device, "query", lambda _: pytest.fail("this would spoil the graph"))
    assert not watched.saw_change([mark])
    watched.end(torch.device("cuda"))
