"""From the prompts of one batch to the networks of each of its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...library import Entry
from ...prompts import Tag
from ..resolving import Use

if TYPE_CHECKING:
    from ...patching import Site


@dataclass
class Batch:
    """The networks of each image of one batch, in the first pass and in the hires pass.

    Attributes:
        first: per image, in the order of its tags.
        hires: the same for the hires pass; empty where the job has none.
        checked: the UNet that the networks were checked against, and its attention modules.
    """

    first: list[list[Use]] = field(default_factory=list)
    hires: list[list[Use]] = field(default_factory=list)
    checked: tuple[object, Sequence[Site]] | None = None

    def of_pass(self, hires: bool) -> list[list[Use]]:
        """What acts in one of the two passes."""
        return self.hires if hires and self.hires else self.first

    def take_sites(self, unet: object) -> Sequence[Site] | None:
        """The attention modules of this UNet if they have just been looked at, and only once.

        Later in the job the modules may be others, such as after a LoRA was loaded.
        """
        checked, self.checked = self.checked, None
        return checked[1] if checked is not None and checked[0] is unet else None

    @property
    def entries(self) -> list[Entry]:
        """All files in use, each once, in the order of the prompts."""
        uses = [use for picture in [*self.first, *self.hires] for use in picture]
        return list({use.entry.path: use.entry for use in uses}.values())

    def entries_of(self, image: int) -> list[Entry]:
        """The files in use for one image.

        Where the prompts don't tell the images apart, those of all.
        """
        passes = [images for images in (self.first, self.hires) if images]
        uses = [use for images in passes for use in images[image if image < len(images) else 0]]
        return list({use.entry.path: use.entry for use in uses}.values())


def tags_of(found: list[list[Tag]], given: Sequence[Sequence[str]]) -> list[list[Tag]]:
    """The tags of each prompt of a batch.

    A script may have changed the prompts of the batch after the job's list of all prompts was made;
    the host then hands over other tags than these prompts have, and they act on every image, as in
    the webui itself.

    Args:
        found: the tags of the prompts as typed, one list per image.
        given: the items of the tags that the host found in the batch's first prompt; SD.Next: in
            the last that has any.
    """
    last = next((tags for tags in reversed(found) if tags), [])
    here = [tuple(items) for items in given]
    if found and any([tag.items for tag in tags] == here for tags in (found[0], last)):
        return found

    return [[Tag(tuple(items)) for items in given]] * max(1, len(found))


def raw_prompts(p: Any, name: str) -> list[str]:
    """The current batch's slice of one of the job's lists of all prompts, such as
    ``"all_prompts"``, tags included.
    """
    everything = getattr(p, name, None) or []
    begin = (getattr(p, "iteration", 0) or 0) * p.batch_size
    return [text or "" for text in everything[begin : begin + p.batch_size]]
