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

    def drawn_again(self) -> torch.Tensor:
        """The number as it is now."""
        return self.now.clone()


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
