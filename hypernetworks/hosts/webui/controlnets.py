"""Networks in the attention of sd-webui-controlnet's models.

A1111's built-in acts there too, since it replaces the attention class for all models; an image with
a ControlNet would look different without this. Forge's ControlNet is another one, on which its
built-in doesn't act.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from ...errors import HypernetworkError

if TYPE_CHECKING:
    from ...patching import Handle, Networks


class ControlNets:
    """The handles on the ControlNets of the job that samples."""

    def __init__(self) -> None:
        self._models: list[nn.Module] = []
        self._handles: list[Handle] = []

    def ensure(
        self, p: Any, networks: Sequence[Networks], on_error: Callable[[Exception], None]
    ) -> None:
        """Networks act on the job's ControlNets as they are now.

        Args:
            p: the job's processing object.
            networks: of each image; several that differ act on none, as the rows of a ControlNet's
                batch aren't those of the UNet's.
            on_error: as for :func:`~hypernetworks.apply`.
        """
        models = [*models_of(p)] if len(networks) == 1 else []
        if len(models) == len(self._models) and all(map(lambda a, b: a is b, models, self._models)):
            return

        from ...patching import apply  # not when the webui starts: it takes time

        self.remove()
        self._models = models
        for model in models:
            try:
                self._handles.append(apply(model, networks[0], on_error=on_error))
            except HypernetworkError:  # a T2I adapter has no attention, another family no width
                continue

    def at(self, step: int, total: int, *, hires: bool) -> None:
        """As :meth:`hypernetworks.Handle.at`."""
        for handle in self._handles:
            handle.at(step, total, hires=hires)

    def remove(self) -> None:
        """Remove all networks."""
        for handle in self._handles:
            handle.remove()
        self._models, self._handles = [], []


def models_of(p: Any) -> Iterator[nn.Module]:
    """The models of the ControlNet extension in this job, each once."""
    seen = set[int]()
    for script in getattr(getattr(p, "scripts", None), "alwayson_scripts", None) or ():
        hook = getattr(script, "latest_network", None)
        for unit in getattr(hook, "control_params", None) or ():
            model = getattr(unit, "control_model", None)
            if isinstance(model, nn.Module) and id(model) not in seen:
                seen.add(id(model))
                yield model
