"""The settings of a training run, apart from the model and the images; and presets per purpose."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..engine.structure import Structure
from ..errors import TrainingSettingsError
from .objective import LOSSES, NOISE_LEVELS
from .optimisers import needs_no_schedule
from .rates import RateSchedule

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
CLIPPINGS = ("norm", "value")
GAINS = ("off", "on")
UNTIL = ("steps", "best")
STORAGES = ("whole", "fp8", "streamed")
"""How a model's weights may be kept while it is trained on, the fastest first."""
MEMORY = ("auto", *STORAGES)
CHECKPOINTINGS = ("auto", "on", "off")
"""Whether activations are computed twice instead of kept; auto: where memory runs out."""


@dataclass(frozen=True)
class TrainingSettings:
    """The settings of one run, checked on construction.

    Attributes:
        steps: optimiser steps.
        rate: learning rate, in :mod:`.rates`' syntax.
        shape, warm_up, restarts, floor: see :class:`~.rates.RateSchedule`; the warm-up is at most
            half of the run.
        optimiser: ``"ScheduleFreeAdamW"``, any optimiser of ``torch.optim`` by name, or of an
            installed package by its dotted path.
        weight_decay: of the optimiser, where it has one.
        options: further arguments of the optimiser by name.
        gains: ``"on"``: the last layers are learned as products, see :mod:`.gains`; or ``"off"``.
        batch: examples per forward pass, over all processes.
        accumulation: forward passes per step.
        precision: ``"fp32"``, or autocast to ``"bf16"`` or ``"fp16"`` (with a gradient scaler);
            ``"auto"`` leaves it to the host, and is fp32 to the loop. The network itself stays
            fp32.
        clip: largest gradient (see ``clip_by``), after unscaling; 0 for none.
        clip_by: ``"norm"`` of all gradients together, or ``"value"`` of each.
        min_snr: gamma of Min-SNR weighting; 0 for none. 5 is usual.
        debiased: whether noisy time steps count more; see
            :meth:`~.objective.NoiseSchedule.debiased_weights`.
        loss: ``"mse"``, or ``"huber"``, which forgives single large errors.
        noise_levels: ``"uniform"``, or ``"style"``: mostly noisy time steps.
        noise_offset: see :func:`~.objective.with_offset`; 0 for none.
        ema: decay of an exponential moving average of the weights, which is then what files hold; 0
            for none.
        caption_dropout: share of samples with an empty caption.
        seed: of everything random.
        save_every: steps between checkpoints; 0 for the last step alone.
        keep: checkpoint files that stay (the state for resuming is one file); 0 for all.
        watch_every: steps between validation losses; 0 for none.
        preview_every: steps between previews; 0 for none.
        until: ``"steps"``: all of them; ``"best"``: no further than the validation loss falls.
    """

    steps: int = 1000
    rate: str = "1e-4"
    shape: str = "auto"
    warm_up: int = 50
    restarts: int = 0
    floor: float = 0.05
    optimiser: str = "AdamW"
    weight_decay: float = 0.0
    options: Mapping[str, object] = field(default_factory=dict)
    gains: str = "off"
    batch: int = 1
    accumulation: int = 1
    precision: str = "auto"
    clip: float = 1.0
    clip_by: str = "norm"
    min_snr: float = 0.0
    debiased: bool = False
    loss: str = "mse"
    noise_levels: str = "uniform"
    noise_offset: float = 0.0
    ema: float = 0.0
    caption_dropout: float = 0.1
    seed: int = 0
    save_every: int = 100
    keep: int = 0
    watch_every: int = 50
    preview_every: int = 0
    until: str = "steps"

    def __post_init__(self) -> None:
        for name, low in (
            ("steps", 1),
            ("batch", 1),
            ("accumulation", 1),
            ("warm_up", 0),
            ("restarts", 0),
        ):
            _check(name, getattr(self, name), low, 10**8, whole=True)

        for name in ("save_every", "keep", "watch_every", "preview_every", "seed"):
            _check(name, getattr(self, name), 0, 2**63 - 1, whole=True)

        for name, high in (("floor", 1.0), ("weight_decay", 1e6), ("clip", 1e9), ("min_snr", 1e6)):
            _check(name, getattr(self, name), 0, high)

        for name, high in (("noise_offset", 10.0), ("ema", 0.999999), ("caption_dropout", 1.0)):
            _check(name, getattr(self, name), 0, high)

        for name, known in (
            ("precision", PRECISIONS),
            ("clip_by", CLIPPINGS),
            ("until", UNTIL),
            ("loss", LOSSES),
            ("noise_levels", NOISE_LEVELS),
            ("gains", GAINS),
        ):
            if getattr(self, name) not in known:
                raise TrainingSettingsError(
                    f'{name} is "{getattr(self, name)}", use one of {", ".join(known)}',
                    setting=name,
                )

        self.rates()

    @property
    def samples_per_step(self) -> int:
        """Examples that one optimiser step learns from."""
        return self.batch * self.accumulation

    def saves_at(self, step: int) -> bool:
        """Whether a checkpoint is due after this step, counted from 1."""
        return self.save_every > 0 and step % self.save_every == 0

    def rates(self) -> RateSchedule:
        """The learning rate of every step.

        Raises:
            TrainingSettingsError: it can't be understood.
        """
        # A short run should still reach its rate.
        warm_up = min(self.warm_up, self.steps // 2)
        is_averaged = self.shape == "auto" and needs_no_schedule(self.optimiser)
        return RateSchedule.parse(
            self.rate,
            self.steps,
            shape="constant" if is_averaged else self.shape,
            warm_up=warm_up,
            restarts=self.restarts,
            floor=self.floor,
        )


def _check(name: str, value: float, low: float, high: float, *, whole: bool = False) -> None:
    is_number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise TrainingSettingsError(
            f"{name} is {value!r}: it must be {kind} from {low:g} to {high:g}",
            setting=name,
        )


@dataclass(frozen=True)
class Preset:
    """A starting point for a purpose.

    Attributes:
        label: for people.
        layer_structure, activation, dropout: of the network; see
            :class:`~hypernetworks.engine.structure.Structure`.
        self_attention: whether it also has networks for self-attention, not for the text alone.
        settings: of the run, on a full-size model.
        template: of captions.
    """

    label: str
    layer_structure: tuple[float, ...]
    activation: str
    dropout: tuple[float, ...]
    self_attention: bool
    settings: TrainingSettings
    template: str

    @property
    def structure(self) -> Structure:
        """Of each of the network's MLPs."""
        return Structure(
            self.layer_structure, self.activation, activate_output=False, dropout=self.dropout
        )


PRESETS: dict[str, Preset] = {
    "style": Preset(
        "a style: how everything looks",
        (1, 2, 1),
        "relu",
        (0, 0, 0),
        True,
        TrainingSettings(
            steps=3000, rate="1e-4", batch=2, save_every=250, watch_every=100, preview_every=250
        ),
        "[filewords]",
    ),
    "subject": Preset(
        "a subject: one thing or person, wherever it is named",
        (1, 2, 1),
        "relu",
        (0, 0.1, 0),
        True,
        TrainingSettings(
            steps=2000, rate="5e-5", batch=2, save_every=200, watch_every=100, preview_every=200
        ),
        "a picture of [name], [filewords]",
    ),
    "small": Preset(
        "small: little memory, small file, for the text alone",
        (1, 0.5, 1),
        "linear",
        (0, 0, 0),
        False,
        TrainingSettings(
            steps=1500, rate="2e-4", batch=1, save_every=250, watch_every=100, preview_every=250
        ),
        "[filewords]",
    ),
}
"""What ``create`` and ``train`` begin with, by name."""
