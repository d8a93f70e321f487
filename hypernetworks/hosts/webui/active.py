"""The networks active on the webui's UNet.

Only one job samples at a time, so there is one set of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import HypernetworkError
from ..fit import check_fit
from ..resolving import Use
from . import compiled, host, settings
from .batch import Batch
from .batch_rows import Rows
from .controlnets import ControlNets

if TYPE_CHECKING:
    from ...patching import Handle, Networks, Site

BATCH = "_hypernetwork_batch"
"""Attribute of a processing object: what its current batch asked for."""


class ActiveNetworks:
    """Keeps the live UNet in step with the job that samples on it.

    Webuis exchange the UNet in the middle of a job (refiner, hires checkpoint) and nest jobs in one
    another, so that is looked at anew before each step, by :meth:`ensure`.

    Attributes:
        job: the processing object whose networks act, if any.
    """

    def __init__(self) -> None:
        self._handle: Handle | None = None
        self._for: tuple[object, ...] = ()
        self._networks: list[Networks] = []
        self._controlnets = ControlNets()
        self._rows: Rows | None = None
        self._compile_again: Callable[[], None] | None = None
        self.job: Any = None

    def ensure(self, p: Any, *, hires: bool, unet: Any = None) -> Handle | None:
        """What the job asked for acts on the live UNet afterwards, and nothing else.

        Args:
            p: the job's processing object.
            hires: whether this is the hires pass.
            unet: another than the live one, for hosts that have a pipeline of its own for some
                passes.
        """
        disabled = getattr(p, "disable_extra_networks", False) and not host.is_detail_pass(p)
        batch: Batch | None = None if disabled else getattr(p, BATCH, None)
        pictures = batch.of_pass(hires) if batch is not None else []
        if not any(pictures):
            self.remove()
            return None

        # The host may have exchanged its UNet since the last step, for a refiner or a hires pass.
        module = host.live_module() if unet is None else unet
        here = host.unwrapped(module)
        if here is None or not self._is_current(wanted := (id(p), id(batch), hires), here):
            self.remove()
            if here is None:
                return None
            self._apply(p, module, batch, pictures)
            self._for, self.job = wanted, p

        # Asked at each step: Neo's script decides after the networks have been applied.
        if self._compile_again is None and host.compiles_each_call():
            self._run_eagerly(p)

        return self._handle

    def _is_current(self, wanted: tuple[object, ...], unet: object) -> bool:
        return self._handle is not None and self._for == wanted and self._handle.unet is unet

    def _apply(
        self, p: Any, module: Any, batch: Batch | None, pictures: Sequence[Sequence[Use]]
    ) -> None:
        from ...patching import apply_at, find_sites  # not when the webui starts: it takes time
        from .dense import apply_lora, is_dense

        unet: Any = host.unwrapped(module)
        if (other := host.replaced_unet()) is not None:
            host.tell(
                p,
                (
                    f"{other} replaces the UNet, so hypernetworks have no effect: switch it off "
                    "in the settings"
                ),
            )
        sites = batch.take_sites(unet) if batch is not None else None
        if sites is None:
            sites = find_sites(unet)
            pictures = self._fitting(p, sites, pictures)

        networks = [[(use.network, use.multiplier) for use in picture] for picture in pictures]
        asked = [[(use.entry.path, str(use.multiplier)) for use in picture] for picture in pictures]
        # Networks that are the same for all images need no rows, and can be folded.
        self._networks = [*networks]
        if all(one == asked[0] for one in asked):
            self._rows, self._networks = None, [*networks[:1]]
            self._handle = apply_at(
                unet,
                sites,
                networks[:1],
                on_error=lambda error: self._tell_of(p, error),
                is_dense=is_dense,
                prepare=apply_lora,
            )
        else:
            self._rows = Rows(len(pictures))
            self._handle = apply_at(
                unet,
                sites,
                networks,
                self._rows.of_call,
                on_error=lambda error: self._tell_of(p, error),
            )

        if compiled.is_compiled(module):
            self._run_eagerly(p)

    @staticmethod
    def _tell_of(p: Any, error: Exception) -> None:
        host.tell_of_fault(p, "applying the networks", error)

    @staticmethod
    def _fitting(
        p: Any, sites: Sequence[Site], pictures: Sequence[Sequence[Use]]
    ) -> list[list[Use]]:
        """What fits this UNet: tags were checked against the job's model, and a refiner may be of
        another family.
        """
        unfit = set[int]()
        for use in (use for picture in pictures for use in picture):
            try:
                check_fit(use.network, use.multiplier, sites, any_family=settings.force_family())
            except HypernetworkError as error:
                unfit.add(id(use))
                host.tell(
                    p,
                    f"{use.tag} is skipped in the model that was loaded during generation: {error}",
                )

        return [[use for use in picture if id(use) not in unfit] for picture in pictures]

    def _run_eagerly(self, p: Any) -> None:
        # Compiled code was traced without our hooks, and would go on without them.
        self._compile_again = compiled.run_eagerly()

        said = (
            "the model is compiled, so hypernetworks have no effect: switch compilation off in the "
            "settings"
            if self._compile_again is None
            else "the model is compiled; it runs uncompiled while hypernetworks are active, which "
            "is slower"
        )
        host.tell(p, said)

    def before_step(
        self,
        p: Any,
        step: int,
        total: int,
        *,
        hires: bool,
        conditions: Sequence[int] | None,
        unet: Any = None,
    ) -> None:
        """The sampler is about to run the UNet for this step of the pass.

        Args:
            step: from 0.
            total: steps of the pass.
            conditions: how many conditions each image has, where prompts combine several.
            hires: whether this is the hires pass.
            unet: as for :meth:`ensure`.
        """
        handle = self.ensure(p, hires=hires, unet=unet)
        if handle is None:
            return

        # Asked at each step: the extension loads its models after the networks were applied.
        self._controlnets.ensure(p, self._networks, lambda error: self._tell_of(p, error))
        for one in (handle, self._controlnets):
            one.at(step, total, hires=hires)
        if self._rows is not None:
            self._rows.begin_step(conditions)

    def after_step(self, p: Any) -> None:
        """Called after the UNet has run; warns the user if the images of the batch could not be
        told apart.
        """
        if self._rows is not None and self._rows.lost:
            host.tell(
                p,
                "the prompts of this batch name different networks, but the images can't be told "
                "apart here: the first image's hypernetworks were applied to some or all others",
            )

    def remove(self) -> None:
        """Remove all hypernetworks from the UNet."""
        self._controlnets.remove()
        if self._handle is not None:
            self._handle.remove()
        # After the hooks: code that is compiled with them would keep them.
        if self._compile_again is not None:
            self._compile_again()
            self._compile_again = None
        self._handle, self._rows, self._for, self.job = None, None, (), None


ACTIVE = ActiveNetworks()
"""The one set. The package stays imported when the webui reloads its scripts, and this with it."""
