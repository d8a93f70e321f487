"""A job as the options of ``train``, in TOML: what ``train --config`` reads."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from ....training import TrainingSettings
from ....training.pictures import PictureSettings
from ....training.sources import Source
from ....training.toml import write_toml
from .job import TrainingJob

NO_OPTIONS = {"floor", "width", "height", "fit", "step"}
"""Settings that have no option, or another one."""
HEAD = """\
# The options of this run. `python -m hypernetworks train --config FILE` does the same again;
# options that are typed beside it count first. Names are those of `train --help`.

"""


def config_of(job: TrainingJob, checkpoint: Path | None) -> str:
    """The text of ``run.toml``.

    Args:
        checkpoint: where the model was loaded from; ``None`` for the miniature.
    """
    size, settings = job.picture_settings, job.settings
    found: dict[str, Any] = {"name": job.name, "runs": job.runs.resolve()}
    found |= {"checkpoint": checkpoint and checkpoint.resolve()}
    # All else that a preset says is written as well, but for the bounds of steps by images.
    found |= {"preset": job.preset, "format": job.suffix[1:]}
    found |= {"network": job.network and job.network.resolve()}
    found |= _structure(job) if job.network is None else {}

    found |= {"size": f"{size.width}x{size.height}", "buckets": size.fit == "buckets"}
    found |= _values(size, PictureSettings) | {"skip_bad": job.skip_bad}
    found |= {"template": _template(size.template)}
    found |= {"captioner": job.captioner and job.captioner.resolve()}
    found |= {"cache": job.cache and job.cache.resolve()}
    found |= _values(settings, TrainingSettings)
    # Written as a number, they would not follow the images any more.
    if job.steps_by_images:
        del found["steps"]

    found |= {
        "checkpointing": job.checkpointing,
        "memory": job.memory,
        "tensorboard": job.tensorboard,
    }
    found |= {"previews": list(job.previews), "preview_seed": job.preview_seed}
    found |= {"preview_steps": job.preview_steps}
    found |= {"folders": [_folder(source) for source in job.all_sources()]}
    return HEAD + write_toml(
        {key: value for key, value in found.items() if value not in (None, "")}
    )


def _values(record: Any, kind: Any) -> dict[str, Any]:
    return {f.name: getattr(record, f.name) for f in fields(kind) if f.name not in NO_OPTIONS}


def _structure(job: TrainingJob) -> dict[str, Any]:
    creation, structure = job.creation, job.creation.structure
    return {
        "layers": structure.layer_structure,
        "activation": structure.activation,
        "activate_output": structure.activate_output,
        "layer_norm": structure.layer_norm,
        "dropout": structure.dropout,
        "initialisation": creation.initialisation,
        "random_last": not creation.zero_last,
        "self_attention": creation.self_attention,
        "network_seed": creation.seed,
    }


def _folder(source: Source) -> dict[str, Any]:
    """A folder with what is not as usual about it."""
    found: dict[str, Any] = {"path": source.path.resolve(), "repeats": source.repeats}
    if source.weight != 1:
        found["weight"] = source.weight
    if source.masks is not None:
        found["masks"] = source.masks.resolve()
    if source.words:
        found["words"] = source.words
    if source.is_prior:
        found["prior"] = True
    found |= source.changes
    if "template" in found:
        found["template"] = _template(str(found["template"]))
    return found


def _template(template: str) -> str:
    """A template as it can be found from everywhere, where it is a file of lines."""
    return str(Path(template).resolve()) if template.endswith(".txt") else template
