"""Whether tensors on an accelerator are still what they were: asked of the device now, and read
when it has answered.

Nothing here waits for the device as long as it has events (CUDA, XPU); elsewhere an answer is a
whole UNet call old when it is read.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from ..engine.folding import WeightMark

CHANGED_CONTEXT = (
    "a context was changed in place in the middle of a UNet call, in inference mode, where that "
    "shows only afterwards: in that call the networks acted on what it had been; from now on "
    "every layer computes for itself. Use torch.no_grad() instead of torch.inference_mode() to "
    "have it seen at once"
)

AT_ONCE = 0.02
"""Seconds: a call that follows the last one sooner is another step of the same generation."""
PARTS = 8
"""Of the weights, one is looked at in each such call: asking for all takes the program as long as
all folded projections together."""


class Later:
    """A comparison whose answer comes later."""

    def __init__(self) -> None:
        self._answer: torch.Tensor | None = None
        self._done: Any = None

    @property
    def is_open(self) -> bool:
        """Whether an answer is still to be read."""
        return self._answer is not None

    def ask(self, now: torch.Tensor, before: torch.Tensor) -> None:
        """Have the device find out whether two tensors differ."""
        if now.is_meta:  # it has no numbers: kernels are only being counted
            return

        differs = torch.ne(now, before).any()
        self._done = _event(differs.device)
        if self._done is None:
            self._answer = differs
            return

        # Only a copy into pinned memory leaves the program running while the device computes.
        self._answer = _pinned()
        self._answer.copy_(differs, non_blocking=True)
        self._done.record()

    def read(self) -> bool | None:
        """Whether they differed; ``None`` where nothing was asked, or the device is not that
        far.
        """
        # While CUDA records a graph, asking after anything outside of it would spoil the graph.
        if self._answer is None or _is_capturing():
            return None
        if self._done is not None and not self._done.query():
            return None
        answer, self._answer, self._done = bool(self._answer), None, None
        return answer

    def wait(self) -> bool | None:
        """As :meth:`read`, once the device has answered."""
        if self._done is not None:
            self._done.synchronize()
        return self.read()


class WeightWatch:
    """Sees writes that escape torch's counter, such as ``fuse_lora``'s, in weights that are
    folded.

    Where the device had nothing to do when a call began, as between two generations, they are seen
    in that call: the answer is there as soon as it has been asked for. Where it was busy with the
    last call, they are seen in the next one, as the program would have to wait for the device.

    From step to step of a generation, an eighth of the weights is looked at in each call. Who fuses
    a LoRA writes to many, and some of them are in every eighth; a write to one alone may be seen
    some calls later.
    """

    def __init__(self) -> None:
        self._later = Later()
        self._end: Any = None
        self._ended: float | None = None
        self._turn = 0
        self._before: dict[int | None, tuple[list[WeightMark], torch.Tensor]] = {}

    def saw_change(self, marks: Iterable[WeightMark]) -> bool:
        """Whether any weight has changed, or had when this was last called."""
        changed = self._later.read()
        # A graph that is being captured would repeat the question at each replay, unread.
        if _is_capturing() or self._later.is_open:
            return bool(changed)

        asked, part = list(marks), None
        if len(asked) > PARTS and self._follows_at_once():
            part = self._turn = (self._turn + 1) % PARTS
            asked = asked[part::PARTS]
        now = {mark: drawn for mark in asked if (drawn := mark.drawn_again()) is not None}
        if not now or len({(d.device, d.dtype) for d in now.values()}) > 1:
            return bool(changed)

        is_idle = self._end is not None and self._end.query()
        self._later.ask(torch.cat(list(now.values())), self._earlier(part, list(now)))
        return bool(changed) or bool(is_idle and self._later.wait())

    def _follows_at_once(self) -> bool:
        return self._ended is not None and time.perf_counter() - self._ended < AT_ONCE

    def _earlier(self, part: int | None, marks: Sequence[WeightMark]) -> torch.Tensor:
        """The numbers that were there when the weights were folded."""
        known = self._before.get(part)
        if known is None or known[0] != marks:
            known = list(marks), torch.cat([mark.sample for mark in marks])
            self._before[part] = known
        return known[1]

    def end(self, device: torch.device | None) -> None:
        """The program has asked the device for everything that belongs to a call."""
        if device is None or _is_capturing():
            return
        self._ended = time.perf_counter()
        self._end = self._end or _event(device)
        if self._end is not None:
            self._end.record()


class ContextWatch:
    """Sees whether contexts without a version are changed in the middle of a call.

    Attributes:
        distrusts: that has happened.
    """

    def __init__(self) -> None:
        self.distrusts = False
        self._later = Later()
        self._noted: tuple[torch.Tensor, torch.Tensor] | None = None

    def note(self, context: torch.Tensor) -> None:
        """This context is remembered from now on; of several, one is looked at."""
        if self._noted is None and not self._later.is_open and not _is_capturing():
            self._noted = context, context.clone()

    def end(self) -> None:
        """The call is over."""
        if self._noted is not None:
            noted, self._noted = self._noted, None
            self._later.ask(*noted)

    def begin(self) -> None:
        """A call starts; the answer on the last one may have come."""
        if self._later.read():
            self.distrusts = True
            warnings.warn(CHANGED_CONTEXT, stacklevel=2)


def _event(device: torch.device) -> Any:
    """Something that tells when a device has come so far; ``None`` where there is nothing."""
    # Others may have events, but no pinned memory for an answer.
    return getattr(torch, device.type).Event() if device.type in ("cuda", "xpu") else None


def _pinned() -> torch.Tensor:
    return torch.empty((), dtype=torch.bool, pin_memory=True)


def _is_capturing() -> bool:
    """Whether CUDA records what is asked of it, instead of doing it."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
