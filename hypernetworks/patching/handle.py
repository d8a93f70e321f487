"""The handle of the networks on one UNet: sets the step, removes them, and describes them."""

from __future__ import annotations

import contextlib
import threading
import warnings
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from torch import nn

from ..engine.stack import KEY, VALUE
from ..errors import HypernetworkError, PatchError
from .binding import Binding, Reach
from .checks import check, check_shared, unwrapped
from .folded import FoldedProjection
from .foreign import adopt, check_foreign
from .last_layer import LastLayerProjection
from .noticing import Noticing
from .projection import Projection
from .seam import IsDense, Prepare, Seam, is_plain_linear, nothing
from .site_multipliers import SiteMultipliers
from .sites import SELF, Site, find_sites
from .watch import WeightWatch

MARK = "_hypernetwork_handles"
"""Attribute of a UNet with networks: its handles, the active one last.

It is deleted when the last handle is removed.
"""


_UNREACHED = (
    "{count} attention modules of the UNet, such as {first}, called no to_k and to_v, so "
    "networks had no effect there: if the UNet is compiled, use an attention processor that "
    "calls them"
)

CHANGING = threading.RLock()
"""Held while handles are added or removed, since several threads may do so on one UNet."""

RowsOf = Callable[[tuple[Any, ...], dict[str, Any]], "Sequence[int] | None"]
"""Called with the arguments of a UNet call, positional and by name; returns each row's image."""


OnError = Callable[[Exception], None]
"""Called with an error inside a hook, after the hooks were removed."""


class Handle:
    """The networks on one UNet. A context manager; :meth:`remove` restores the UNet exactly.

    If a UNet has several handles, the latest is active; when it is removed, the one before it is
    active again.

    Args:
        unet: the UNet.
        per_image: multipliers for all rows of the UNet's batch, or for each image.
        sites: the attention modules of ``unet``.
        rows_of: returns the image of each row; needed if there are several per_image.
        on_error, is_dense: see :func:`~hypernetworks.apply`.
        prepare: see :data:`~hypernetworks.patching.seam.Prepare`.
        compiled: what ``torch.compile`` made of ``unet``, where that is what will be called.
    """

    def __init__(
        self,
        unet: nn.Module,
        per_image: Sequence[SiteMultipliers],
        sites: Sequence[Site],
        rows_of: RowsOf | None = None,
        on_error: OnError | None = None,
        is_dense: IsDense = is_plain_linear,
        prepare: Prepare = nothing,
        compiled: nn.Module | None = None,
    ) -> None:
        self._unet = weakref.ref(unet)
        self._unet_kind = type(unet).__name__
        self._per_image, self._sites, self._rows_of = tuple(per_image), tuple(sites), rows_of
        self._on_error = on_error

        self._noticing = Noticing(self._enter, self._leave, self._is_compiled_in_place, compiled)
        outside = self._noticing.is_outside(unet)
        self.seam = Seam(per_image, self._fail, is_dense, prepare, outside, self._is_in_place)
        self._watch = WeightWatch()
        self._projections = self._projections_at(sites)
        self._bindings: weakref.WeakKeyDictionary[nn.Module, Binding] = weakref.WeakKeyDictionary()
        self._reach: Reach | None = None

    def _projections_at(self, sites: Sequence[Site]) -> dict[tuple[int, int], Projection]:
        """Projections by index of the attention module, and side; shared modules have one."""
        found: dict[tuple[int, int], Projection] = {}
        known: dict[nn.Module, Projection] = {}

        for index, site in enumerate(sites):
            for side, module in ((KEY, site.to_k), (VALUE, site.to_v)):
                if module not in known:
                    known[module] = self._projection(index, side, site.kind, module)
                found[index, side] = known[module]

            pair = found[index, KEY], found[index, VALUE]
            for one, other in (pair, pair[::-1]):
                if isinstance(one, LastLayerProjection) and isinstance(other, LastLayerProjection):
                    one.partner = other if other is not one else None

        self.seam.reserve(sum(p.nbytes for p in known.values() if isinstance(p, FoldedProjection)))
        return found

    def _projection(self, index: int, side: int, kind: str | None, module: nn.Module) -> Projection:
        """The projection of one module."""
        # Images with different networks share the weight, so nothing can be folded into it. The
        # context of the text is computed once per call, which is fast enough.
        chosen: type[Projection] = Projection
        if kind == SELF and len(self._per_image) == 1:
            if self._per_image[0].ends_linear:
                chosen = FoldedProjection
            elif self._per_image[0].ends_in_layer:
                chosen = LastLayerProjection
        return chosen(self.seam, index, side, kind, module)

    @property
    def unet(self) -> nn.Module | None:
        """The UNet; ``None`` if it no longer exists."""
        return self._unet()

    def at(self, step: int, total: int, *, hires: bool = False) -> None:
        """Set the next step, for schedules.

        Args:
            step: 0 for the first step of the pass, ``total - 1`` for the last.
            total: number of steps that the pass actually runs.
            hires: whether this is the hires pass.
        """
        for image in self._per_image:
            image.at(step, total, hires=hires)

    def remove(self) -> None:
        """Remove this handle's networks.

        It may be called several times, and in any order with other handles.
        """
        with CHANGING:
            unet = self._unet()
            handles = handles_of(unet)
            self._uninstall()
            if unet is None or self not in handles:
                return

            others = [handle for handle in handles if handle is not self]
            mark_with(unet, others)
            if others and handles[-1] is self:
                others[-1]._install(unet, anew=True)

    def _install(self, unet: nn.Module, *, anew: bool = False) -> None:
        """Register all hooks; none if no network can ever have an effect.

        Args:
            anew: whether the UNet may have changed since the handle was made. Problems are then
                reported at the next call.
        """
        if all(image.is_zero for image in self._per_image):
            return

        # It may have been compiled in place while another handle was active.
        self.seam.is_entered_outside = self._noticing.is_outside(unet)
        self._noticing.start(unet)
        binding = self._bindings.get(unet)
        if anew and not (binding is not None and binding.is_in_place()):
            self._bindings.clear()
            with contextlib.suppress(HypernetworkError):
                self._bind(unet)
        else:
            self._put_on(unet)

    def _is_in_place(self) -> bool:
        unet = self._unet()
        binding = self._bindings.get(unet) if unet is not None else None
        return binding is not None and binding.is_in_place()

    def _is_compiled_in_place(self) -> None:
        """What was compiled with hooks in it must not be used any more."""
        self.seam.is_entered_outside = True
        for projection in self._unlike:
            if projection.stand_in is not None:
                projection.stand_in.is_entered_outside = True

    def _put_on(self, unet: nn.Module) -> None:
        for projection in self._unlike:
            projection.install()
        self._bindings[unet] = Binding(unet, self._sites, self._unlike)
        self._reach = Reach()
        self._reach.start(unet, self._sites)

    def _take_off(self) -> None:
        # First, or a call in another thread would report that the projections weren't called.
        if self._reach is not None:
            self._reach.stop()
        for projection in self._unlike:
            projection.uninstall()
        self._reach = None

    def _uninstall(self) -> None:
        """Remove all hooks. The handle keeps its mark, since it may become active again."""
        self._noticing.stop(self._unet())
        self._take_off()
        self.seam.call.end()

    @property
    def _unlike(self) -> list[Projection]:
        """Each projection once."""
        return list(dict.fromkeys(self._projections.values()))

    def _bind(self, unet: nn.Module) -> None:
        """Hook the UNet in its current state.

        If that is impossible, it raises the errors of :func:`~hypernetworks.apply` and changes
        nothing.
        """
        sites = find_sites(unet)
        check(unet, [image.stack for image in self._per_image], sites)
        check_shared(self._per_image, sites)
        check_foreign(sites, seams_of(unet))
        per_image = tuple(image.on(sites) for image in self._per_image)

        # Nothing can fail from here on, so the handle is never between two states.
        self._take_off()
        self._sites, self._per_image = tuple(sites), per_image
        self.seam.start_over(per_image)
        self._projections = self._projections_at(sites)
        self._put_on(unet)

    def _fail(self, error: Exception) -> None:
        """Handle an error in the middle of a UNet call: raise it, or remove the networks."""
        if self._on_error is None:
            raise error
        with CHANGING:
            self._uninstall()
        self._on_error(error)

    def _enter(self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        given = (*arguments, *named.values())
        self.seam.call.begin(None, given)
        try:
            self._look_at(module)
            if self._rows_of is not None:
                self.seam.call.begin(self._rows_of(arguments, named), given)
        except Exception as error:
            self._fail(error)

    def _look_at(self, module: nn.Module) -> None:
        """Compare the UNet with its earlier state, and hook it again if it has changed."""
        unet = self._unet()
        if unet is None or (module is not unet and unwrapped(module) is not unet):
            adopt(module)
            return

        # Modules may have been replaced since the last call, by a LoRA for instance.
        binding = self._bindings.get(unet)
        if binding is None or not binding.holds():
            with CHANGING:
                if self._noticing.is_on:  # unless another thread has removed the networks meanwhile
                    self._bind(unet)
        elif not binding.ways_hold():
            with CHANGING:
                self._start_reach_anew(unet)

        self._look_at_weights()
        self.seam.watch.begin()
        if self._reach is not None:
            self._reach.begin()

    def _start_reach_anew(self, unet: nn.Module) -> None:
        """Check again whether the projections are called: an attention processor is new."""
        if self._reach is None:
            return

        self._reach.stop()
        for projection in self._unlike:
            projection.was_reached = False
        self._reach = Reach()
        self._reach.start(unet, self._sites)

    def _look_at_weights(self) -> None:
        """Check the weights on accelerators, where a projection would have to wait."""
        if self.seam.folds_on is None:
            return

        # One comparison for all weights: one for each would take as long as the UNet call.
        folded = [p for p in self._projections.values() if isinstance(p, FoldedProjection)]
        if self._watch.saw_change(mark for p in folded if (mark := p.mark) is not None):
            for projection in folded:
                projection.forget()

    def _leave(self, module: nn.Module, arguments: object, result: object) -> None:
        self.seam.call.end()
        self.seam.watch.end()
        self._watch.end(self.seam.folds_on)
        if result is None or self._reach is None:  # an error is on its way
            return

        # Only modules that ran for the first time are checked: a processor that bypasses the
        # projections does so in every call.
        for index in self._reach.taken():
            if not any(self._projections[index, side].was_reached for side in (KEY, VALUE)):
                self._fail(
                    PatchError(
                        f"{self._sites[index].path} was computed without calling its to_k and "
                        "to_v, so the networks could not act there: use an attention processor "
                        "that calls them"
                    )
                )
                return
        self._look_for_unreached()

    def _look_for_unreached(self) -> None:
        """Compiled attention can't be noted as it runs: say which projections nobody called."""
        if self._reach is None or not self._noticing.is_on:  # another handle is active by now
            return

        unreached = [
            self._sites[index].path
            for index in self._reach.unseen()
            if not any(self._projections[index, side].was_reached for side in (KEY, VALUE))
        ]
        if unreached:
            warnings.warn(_UNREACHED.format(count=len(unreached), first=unreached[0]), stacklevel=2)

    @property
    def paths(self) -> dict[str, str]:
        """How each projection was last changed: ``"folded"``, ``"input"`` or ``"untouched"``.

        Only projections that were called since the networks are active are included.
        """
        names = ("to_k", "to_v")
        served = (
            (f"{self._sites[i].path}.{names[s]}", p) for (i, s), p in self._projections.items()
        )
        return {name: projection.path for name, projection in served if projection.path}

    def __enter__(self) -> Handle:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        networks = " | ".join(filter(None, map(str, self._per_image)))
        state = "active" if self._noticing.is_on else "not active"
        here = {site.width for site in self._sites if site.width is not None}
        theirs = self.seam.widths
        unmatched = [
            f"{label} {', '.join(map(str, sorted(widths)))}"
            for label, widths in (
                ("model widths without a network:", here - theirs),
                ("network widths without a place:", theirs - here),
            )
            if widths and here
        ]
        lines = [
            f"{networks or 'no networks'} on {self._unet_kind}",
            f"{len(self._sites)} attention modules",
            state,
        ]

        return f"<hypernetworks: {'; '.join(lines + unmatched)}>"


class _Mark(list[Handle]):
    """The handles of one UNet. Copies of the UNet have none."""

    def __init__(self, unet: nn.Module, handles: Sequence[Handle]) -> None:
        super().__init__(handles)
        self.unet = weakref.ref(unet)

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Handle]:
        return []

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        return list, ()


def handles_of(unet: nn.Module | None) -> list[Handle]:
    """The handles of this UNet, the active one last; none for a copy of the UNet."""
    mark = vars(unet).get(MARK) if unet is not None else None
    return list(mark) if isinstance(mark, _Mark) and mark.unet() is unet else []


def seams_of(unet: nn.Module) -> list[Seam]:
    """The seams of this UNet's handles."""
    return [handle.seam for handle in handles_of(unet)]


def mark_with(unet: nn.Module, handles: Sequence[Handle]) -> None:
    """Store the handles of this UNet; without any, it has no mark."""
    if handles:
        object.__setattr__(unet, MARK, _Mark(unet, handles))
    else:
        vars(unet).pop(MARK, None)
