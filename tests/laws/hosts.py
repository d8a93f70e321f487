"""UNets to hold the laws on, and how to look at one without touching it."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import torch
from laws.small_ldm import CHANNELS, CONTEXT, SmallUNet
from reference import Content, Recipe, relative_error
from torch import nn

import hypernetworks as hn
from hypernetworks.patching import Site, find_sites

DEVICE = "cpu"
"""Where hosts are made; ``tests/cuda`` sets another."""


@dataclass
class Host:
    """A UNet and a way to call it.

    Attributes:
        run: ``(context)`` -> the UNet's output for fixed latents and a fixed time.
        cross: width of the text.
        sites: its attention modules.
    """

    name: str
    unet: nn.Module
    run: Callable[[torch.Tensor], torch.Tensor]
    cross: int
    sites: list[Site] = field(init=False)

    def __post_init__(self) -> None:
        self.sites = find_sites(self.unet)

    @property
    def widths(self) -> tuple[int, ...]:
        """Of all contexts: those of self-attention, and ``cross``."""
        queries = [self.unet.get_submodule(f"{site.path}.to_q") for site in self.sites]
        return tuple(sorted({self.cross, *(int(query.in_features) for query in queries)}))  # type: ignore[arg-type]

    def context(self, seed: int = 0, tokens: int = 5) -> torch.Tensor:
        """A text ``(2, tokens, cross)``, in the UNet's dtype."""
        drawn = torch.randn(2, tokens, self.cross, generator=torch.Generator().manual_seed(seed))
        return drawn.to(next(self.unet.parameters()))

    def network(
        self, activation: str | None = "relu", seed: int = 0, **recipe: object
    ) -> tuple[Content, hn.Hypernetwork]:
        """A network of all widths, as the reference and as the engine see it."""
        made = Recipe(self.widths, activation=activation, seed=seed, **recipe)  # type: ignore[arg-type]
        content = made.content()
        description = hn.Structure(
            tuple(map(float, made.layer_structure)), activation or "linear", made.activate_output, made.layer_norm,
            made.dropout or (0.0,) * len(made.layer_structure),
        )  # fmt: skip
        return content, hn.Hypernetwork.from_tensors(
            f"n{seed}", description, {w: content[w] for w in made.widths}
        )


def latents(unet: nn.Module) -> torch.Tensor:
    drawn = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(99))
    return drawn.to(next(unet.parameters()))


def ldm(levels: tuple[int, ...] = CHANNELS) -> Host:
    unet = SmallUNet(levels).eval().requires_grad_(False)
    times = torch.tensor([7.0, 7.0])
    return Host("ldm", unet, lambda c: unet(latents(unet), times.to(c.device), context=c), CONTEXT)


def _diffusers(name: str, cross: int, channels: tuple[int, ...], **settings: object) -> Host:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers import UNet2DConditionModel
    unet = UNet2DConditionModel(
        sample_size=8, norm_num_groups=4, layers_per_block=2, block_out_channels=channels, cross_attention_dim=cross,
        **settings,
    )  # fmt: skip
    unet.eval().requires_grad_(False)

    def run(context: torch.Tensor) -> torch.Tensor:
        added = None
        if name == "sdxl":
            added = {
                "text_embeds": context[:, 0, :6],
                "time_ids": torch.arange(12.0).view(2, 6).to(context),
            }
        return unet(latents(unet), 7, encoder_hidden_states=context, added_cond_kwargs=added).sample  # type: ignore[no-any-return]

    return Host(name, unet, run, cross)


def sd1() -> Host:
    return _diffusers("sd1", 12, (8, 16, 32, 32), attention_head_dim=2)


def sd2() -> Host:
    heads = (1, 2, 4, 4)
    return _diffusers(
        "sd2", 20, (8, 16, 32, 32), attention_head_dim=heads, use_linear_projection=True
    )


def sdxl() -> Host:
    return _diffusers(
        "sdxl", 24, (8, 16, 32),
        attention_head_dim=(1, 2, 4), use_linear_projection=True, transformer_layers_per_block=(1, 1, 2),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=30,
    )  # fmt: skip


HOSTS: dict[str, Callable[[], Host]] = {"ldm": ldm, "sd1": sd1, "sd2": sd2, "sdxl": sdxl}


def make(name: str) -> Host:
    """A host with the same random weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        host = HOSTS[name]()
    host.unet.to(DEVICE)
    return host


def traces(module: nn.Module) -> list[tuple[object, ...]]:
    """Everything that a patch could leave: classes, attributes, hooks and state of every module."""
    return [
        (
            path,
            type(part),
            sorted(vars(part)),
            [(k, list(v)) for k, v in sorted(vars(part).items()) if "hooks" in k],
        )
        for path, part in module.named_modules()
    ] + [tuple(module.state_dict())]


def left_as_it_was(host: Host) -> Iterator[Host]:
    """For fixtures: law 1 holds after each test."""
    before = traces(host.unet)
    yield host
    assert traces(host.unet) == before, "a test left traces on the UNet"


def hooks(module: nn.Module) -> int:
    """How many hooks all modules have together."""
    return sum(
        len(v) for part in module.modules() for k, v in vars(part).items() if k.endswith("_hooks")
    )


@dataclass
class Seen:
    """What reached a projection, what it multiplied, with networks in it; and what came out of it.

    Folded networks don't show in ``after``: they are in the weight.
    """

    site: Site
    side: int
    before: torch.Tensor
    after: torch.Tensor
    output: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    def error(self, expected: torch.Tensor) -> float:
        """How far the output is from the projection of this context ``(batch, tokens, dim)``, in
        fp32."""
        projection = self.site.to_v if self.side else self.site.to_k
        weight = projection.weight.detach().float().cpu()  # type: ignore[operator,union-attr]
        return relative_error(
            self.output.float(), nn.functional.linear(expected.float().cpu(), weight)
        )


class Recorder:
    """Notes contexts as they come to projections, and as these multiply them: make it, apply, then
    :meth:`watch`.
    """

    def __init__(self, host: Host) -> None:
        self.seen: list[Seen] = []
        self._before: dict[nn.Module, torch.Tensor] = {}
        self._multiplied: dict[int, torch.Tensor] = {}
        self._places = [
            (site, side, p) for site in host.sites for side, p in ((0, site.to_k), (1, site.to_v))
        ]
        self._removers = [p.register_forward_pre_hook(self._note_before) for *_, p in self._places]
        self._patches = pytest.MonkeyPatch()

    def watch(self) -> None:
        """Call this after applying."""
        for site, side, projection in self._places:
            self._removers.append(
                projection.register_forward_hook(functools.partial(self._note_output, site, side))
            )
        for kind in {type(p) for *_, p in self._places} - {nn.Linear}:
            self._patches.setattr(kind, "forward", self._noting(kind.forward, id))
        linear = self._noting(nn.functional.linear, lambda _: 0)
        self._patches.setattr(nn.functional, "linear", linear)

    def _noting(
        self, function: Callable[..., torch.Tensor], key: Callable[[object], int]
    ) -> Callable[..., torch.Tensor]:
        """A product of a context ``(context, weight)``, or a forward ``(module, context)``, which
        is noted.
        """

        def noted(first: torch.Tensor, second: torch.Tensor, *others: object) -> torch.Tensor:
            if key(first):
                self._multiplied[id(first)] = second
            else:
                self._multiplied[id(second)] = first
            return function(first, second, *others)

        return noted

    def _note_before(self, module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        self._before[module] = arguments[0]

    def _note_output(
        self, site: Site, side: int, module: nn.Module, arguments: object, output: torch.Tensor
    ) -> None:
        before = self._before[module]
        weight = vars(module)["_parameters"].get("weight")
        after = self._multiplied.get(id(module), self._multiplied.get(id(weight), before))
        self._multiplied.clear()
        self.seen.append(Seen(site, side, before, after, output))

    def stop(self) -> None:
        """Take the recorder's own hooks off."""
        for remover in self._removers:
            remover.remove()
        self._patches.undo()
