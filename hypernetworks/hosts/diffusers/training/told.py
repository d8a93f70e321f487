"""What a network's file tells of its training: lines of ``ss_NAME: value``, by kohya's names where
those say the same, in ``optional_info``, which webuis show.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ....files.lines import lines_of
from ....training import TrainingSettings
from ....training.gathering import Picture
from ....training.words import NONE
from .job import TrainingJob

MOST_TAGS = 100
"""Tags that are counted in a file, the most frequent ones."""


def told_of(
    job: TrainingJob,
    settings: TrainingSettings,
    model: str,
    learned: Sequence[Picture],
    kept: Sequence[Picture],
    before: str | None = None,
) -> str:
    """The text for the file.

    Args:
        before: what the file that is continued tells; what is not of a training stays.
    """
    size = job.picture_settings
    rows: dict[str, Any] = {
        "output_name": job.name,
        "sd_model_name": model,
        "network_module": "hypernetworks",
        "num_train_images": sum(p.repeats for p in learned if not p.is_prior),
        "num_reg_images": sum(p.repeats for p in learned if p.is_prior),
        "num_validation_images": len(kept),
        "max_train_steps": settings.steps,
        "learning_rate": settings.rate,
        "lr_scheduler": settings.shape,
        "lr_warmup_steps": settings.warm_up,
        "optimizer": settings.optimiser,
        "total_batch_size": settings.batch,
        "gradient_accumulation_steps": settings.accumulation,
        "mixed_precision": settings.precision,
        "max_grad_norm": settings.clip,
        "loss_type": settings.loss,
        "min_snr_gamma": settings.min_snr or None,
        "noise_offset": settings.noise_offset or None,
        "caption_dropout_rate": settings.caption_dropout,
        "seed": settings.seed,
        "resolution": f"({size.width}, {size.height})",
        "enable_bucket": size.fit == "buckets",
        "clip_skip": size.clip_skip if size.clip_skip > 1 else None,
        "max_token_length": size.max_tokens or None,
        "dataset_dirs": _folders(learned),
        "tag_frequency": _tags(learned),
    }
    own = [line for line in lines_of(before or "") if not line.startswith("ss_")]
    lines = [f"ss_{key}: {_value(value)}" for key, value in rows.items() if value is not None]
    return "\n".join([*own, *lines])


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _folders(pictures: Sequence[Picture]) -> dict[str, dict[str, int]]:
    """Images and repeats by the name of their folder; no paths, which are private."""
    found: dict[str, dict[str, int]] = {}
    for picture in pictures:
        row = found.setdefault(picture.path.parent.name, {"n_repeats": picture.repeats})
        row["img_count"] = row.get("img_count", 0) + 1
    return found


def _tags(pictures: Sequence[Picture]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for picture in pictures:
        # Tags as they are typed; what a template adds says nothing about the images.
        own = counts.setdefault(picture.path.parent.name, Counter())
        if picture.words.source != NONE:
            own.update(tag.strip()[:60] for tag in picture.words.text.split(",") if tag.strip())
    return {folder: dict(count.most_common(MOST_TAGS)) for folder, count in counts.items() if count}
