"""Hypernetworks and the adapters that they are compared with, in sizes that follow the model's."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

import hypernetworks as hn
from hypernetworks.engine.initialising import create_network
from hypernetworks.patching import find_sites

from .task import Task

TARGETS = ["to_k", "to_v"]
FULL_SIZE = 1 / 40
"""Learning rates at full size, as a share of the miniature's, until a search has found better ones:
with it, the MLP gets the rate of ``train``'s presets, and LoRA what is usual for it.
"""
MLP = hn.Structure((1, 2, 1), "relu", activate_output=False)
LINEAR = hn.Structure((1, 2, 1), "linear", activate_output=False)
SMALL = hn.Structure((1, 0.125, 1), "linear", activate_output=False)


@dataclass
class Adapter:
    """A method, ready to be trained on one pipeline.

    Attributes:
        parameters: what is trained, in fp32.
        contexts: of captions, if these are a function of the parameters (textual inversion).
        at: makes it act with another strength, where the method has one, and with a second network
            beside it, if one is given.
        words: put before every prompt.
    """

    parameters: list[torch.nn.Parameter]
    at: At
    contexts: Callable[[Sequence[str]], dict[str, torch.Tensor]] | None = None
    words: str = ""


Networks = Sequence[tuple[hn.Hypernetwork, float]]
At = Callable[[float, Networks], AbstractContextManager[object]]
Make = Callable[[Task], AbstractContextManager[Adapter]]


@dataclass(frozen=True)
class Method:
    """One row.

    Attributes:
        name: for the table.
        rate: learning rate on the miniature, the best of those tried, see docs/benchmark.md.
        make: applies it to a task's pipeline, whose UNet is frozen, and takes it away again.
        optimiser: AdamW for a fair comparison; another one is named in the row.
    """

    name: str
    rate: float
    make: Make = field(compare=False)
    optimiser: str = "AdamW"

    @property
    def needs_peft(self) -> bool:
        """Whether it is one of peft's."""
        return not self.name.startswith(("hypernetwork", "textual"))


@dataclass(frozen=True)
class Sizes:
    """What decides how many parameters a method has on a UNet.

    Attributes:
        projections: inputs and outputs of each ``to_k`` and ``to_v``.
    """

    projections: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, unet: Any) -> Sizes:
        """Those of a UNet of diffusers."""
        layers: list[Any] = [layer for site in find_sites(unet) for layer in (site.to_k, site.to_v)]
        return cls(tuple((layer.in_features, layer.out_features) for layer in layers))

    @property
    def widths(self) -> tuple[int, ...]:
        """Of contexts; a hypernetwork has a pair of MLPs for each."""
        return tuple(sorted({inputs for inputs, _ in self.projections}))

    @property
    def largest(self) -> int:
        """Parameters of the largest hypernetwork here."""
        return self.parameters(MLP)

    def parameters(self, structure: hn.Structure) -> int:
        """Of a hypernetwork of this structure."""
        with torch.device("meta"):  # no memory, and no time for random weights
            network = hn.Hypernetwork.create("sizes", structure, self.widths)
        return sum(parameter.numel() for parameter in network.parameters())

    def rank(self, structure: hn.Structure) -> int:
        """The lowest rank with which a LoRA has as many parameters as such a hypernetwork."""
        each = sum(inputs + outputs for inputs, outputs in self.projections)
        return math.ceil(self.parameters(structure) / each)

    @property
    def block(self) -> int:
        """The largest block that divides every input, for OFT, which has too few parameters with
        any.
        """
        return math.gcd(*self.widths)

    @property
    def full_rank(self) -> int:
        """One from which LoKr keeps its second factor as a whole matrix."""
        return max(max(pair) for pair in self.projections)


def methods(sizes: Sizes) -> tuple[Method, ...]:
    """All rows, of sizes as near to the hypernetworks' as each method allows."""
    high, low, whole = sizes.rank(MLP), sizes.rank(SMALL), sizes.full_rank
    lora = of_peft("LoraConfig", r=high, lora_alpha=high)
    lokr = of_peft("LoKrConfig", r=whole, alpha=whole, decompose_factor=2)
    oft = of_peft("OFTConfig", oft_block_size=sizes.block, r=0)
    averaged = "ScheduleFreeAdamW"
    return (
        Method("hypernetwork, MLP 1, 2, 1", 4e-3, hypernetwork(MLP)),
        Method(f"LoRA, rank {high}", 4e-3, lora),
        Method("hypernetwork, linear 1, 2, 1", 2e-3, hypernetwork(LINEAR)),
        Method("LoKr, factor 2", 3.2e-2, lokr),
        Method(f"OFT, blocks of {sizes.block}", 1.6e-2, oft),
        Method("IA3", 1.6e-1, of_peft("IA3Config", feedforward_modules=[])),
        Method("textual inversion, 8 words", 2e-2, textual_inversion(8)),
        Method("hypernetwork, linear 1, 1/8, 1", 4e-3, hypernetwork(SMALL)),
        Method(f"LoRA, rank {low}", 1.6e-2, of_peft("LoraConfig", r=low, lora_alpha=low)),
        Method("hypernetwork, MLP 1, 2, 1, schedule-free", 5e-3, hypernetwork(MLP), averaged),
        Method(f"LoRA, rank {high}, schedule-free", 5e-3, lora, averaged),
    )


def hypernetwork(structure: hn.Structure) -> Make:
    """Networks for text and self-attention, as ``train`` makes them."""

    @contextmanager
    def made(task: Task) -> Iterator[Adapter]:
        unet, widths = task.pipeline.unet, task.model.widths()
        network = create_network("bench", structure, widths, initialisation=task.initialisation)
        network.to(task.device, torch.float32)
        network.train()
        handle = hn.apply(unet, [(network, 1.0)])

        @contextmanager
        def at(multiplier: float, others: Networks) -> Iterator[None]:
            nonlocal handle
            handle.remove()
            network.train(False)
            # All at once: what is applied later would take the place of what was there.
            handle = hn.apply(unet, [(network, multiplier), *others])
            try:
                yield
            finally:
                handle.remove()
                network.train()
                handle = hn.apply(unet, [(network, 1.0)])

        try:
            yield Adapter(list(network.parameters()), at)
        finally:
            handle.remove()

    return made


def of_peft(kind: str, **options: Any) -> Make:
    """One of peft's methods on the projections that a hypernetwork changes."""

    @contextmanager
    def made(task: Task) -> Iterator[Adapter]:
        import peft
        from peft.tuners.tuners_utils import BaseTunerLayer

        unet = task.pipeline.unet
        config = getattr(peft, kind)(target_modules=TARGETS, **options)
        peft.inject_adapter_in_model(config, unet)
        layers = {n: m for n, m in unet.named_modules() if isinstance(m, BaseTunerLayer)}
        parameters = [p for p in unet.parameters() if p.requires_grad]
        for parameter in parameters:  # peft gives them the UNet's type, in which steps would vanish
            parameter.data = parameter.data.float()
        scalings = [m.scaling for m in layers.values() if isinstance(_scaling(m), dict)]

        @contextmanager
        def at(multiplier: float, others: Networks) -> Iterator[None]:
            before = [dict(scaling) for scaling in scalings]
            for scaling in scalings:
                scaling.update({k: v * multiplier for k, v in scaling.items()})
            try:
                with beside(unet, others):
                    yield
            finally:
                for scaling, own in zip(scalings, before, strict=True):
                    scaling.update(own)

        try:
            yield Adapter(parameters, at)
        finally:
            for name, layer in layers.items():
                parent, _, own = name.rpartition(".")
                setattr(unet.get_submodule(parent), own, layer.get_base_layer())
            vars(unet).pop("peft_config", None)

    return made


def beside(unet: Any, networks: Networks) -> AbstractContextManager[object]:
    """These networks act inside; nothing is done where there are none."""
    return hn.apply(unet, list(networks)) if networks else nullcontext()


def _scaling(layer: Any) -> Any:
    """By adapter, where peft can scale the method at all."""
    return getattr(layer, "scaling", None)


def textual_inversion(vectors: int) -> Make:
    """So many new words in front of every prompt, for each text encoder; the UNet stays as it
    is.
    """

    @contextmanager
    def made(task: Task) -> Iterator[Adapter]:
        pipeline, texts = task.pipeline, task.model.texts
        names = [f"<style{i}>" for i in range(vectors)]
        words = "".join(names) + " "

        def contexts(captions: Sequence[str]) -> dict[str, torch.Tensor]:
            rows = texts.encode([words + caption if caption else "" for caption in captions])
            return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}

        with ExitStack() as stack:
            learned = [
                stack.enter_context(_new_words(task, part, names))
                for part in ("", "_2")
                if getattr(pipeline, f"text_encoder{part}", None) is not None
            ]
            yield Adapter(learned, lambda _, others: beside(pipeline.unet, others), contexts, words)

    return made


@contextmanager
def _new_words(task: Task, part: str, names: Sequence[str]) -> Iterator[torch.nn.Parameter]:
    """A text encoder and its tokenizer that know new words; their vectors ``(words, dim)``, in
    fp32, begin as the mean of all others.
    """
    pipeline = task.pipeline
    parts = (f"tokenizer{part}", f"text_encoder{part}")
    before = {name: getattr(pipeline, name) for name in parts}
    tokenizer, encoder = (copy.deepcopy(before[name]) for name in parts)

    tokenizer.add_tokens(list(names))
    encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    encoder.requires_grad_(False).to(task.device)
    table, first = encoder.get_input_embeddings(), len(tokenizer) - len(names)
    mean = table.weight[:first].float().mean(0)
    learned = torch.nn.Parameter(mean.repeat(len(names), 1))

    def put(module: object, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        ids = inputs[0]
        is_new = (ids >= first)[..., None]
        return torch.where(is_new, learned[(ids - first).clamp_min(0)].to(output.dtype), output)

    table.register_forward_hook(put)
    try:
        for name, own in zip(parts, (tokenizer, encoder), strict=True):
            setattr(pipeline, name, own)
        yield learned
    finally:
        for name, own in before.items():
            setattr(pipeline, name, own)
