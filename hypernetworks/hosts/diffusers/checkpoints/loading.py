"""Whole models for use without a webui: a diffusers folder, or one ``.safetensors`` file in the
original (ldm) layout.

Nothing is ever downloaded: configurations and tokenizers come from :mod:`.configurations`. What a
file is, is read off its header before anything is loaded, and a model of which one tensor was not
found is an error, never a random weight (which is also why diffusers' own ``from_single_file`` is
not used: it fills gaps with noise and says nothing).
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from ....errors import CheckpointError, printable
from .clip_tokenizer import build_tokenizer
from .families import CONFIGURATIONS, family_of_file, family_of_folder, read_contents, read_json
from .original_names import text_weights, unet_name, vae_name
from .probing import PROBED, probed_prediction

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

PREDICTIONS = ("epsilon", "v_prediction")
"""What a UNet may predict: the noise, or the velocity between noise and image."""

_PREFIXES = {
    "unet": ("model.diffusion_model.",),
    "vae": ("first_stage_model.",),
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.0."),
    "text_encoder_2": ("conditioner.embedders.1.",),
}


def load_checkpoint(
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    configurations: Path | None = None,
    prediction: str | None = None,
) -> DiffusionPipeline:
    """Load a model on the CPU, ready to generate, without any network access.

    Args:
        path: a diffusers folder, or a ``.safetensors`` checkpoint of SD1, SD2 or SDXL base in the
            original layout.
        dtype: what all weights are cast to; the file's own plays no part.
        configurations: a folder of families in place of the shipped ones (:data:`CONFIGURATIONS`).
        prediction: one of :data:`PREDICTIONS`, in place of what the file says. Where an SD2 file
            says nothing, its UNet is asked, and the pipeline has an attribute ``prediction_source``
            that says so.

    Returns:
        A pipeline in eval mode. Its weights are in memory of their own; the file may be replaced.

    Raises:
        CheckpointError: the file is missing, damaged, of another kind, or lacks a part.
    """
    path, configurations = Path(path), configurations or CONFIGURATIONS
    if prediction not in (None, *PREDICTIONS):
        raise CheckpointError(
            f"prediction is {prediction!r}: it must be one of {', '.join(PREDICTIONS)}"
        )

    with _explained(path):
        if path.is_dir():
            family_of_folder(path, configurations)
            with _quiet():
                pipeline = _load_folder(path, dtype)
                return _predicting(pipeline, prediction)
        contents = read_contents(path)
        family = family_of_file(contents, configurations)
        with _quiet():
            loaded: Any = _load_file(path, configurations / family, dtype)
            prediction = prediction or contents.prediction
            if prediction is None and family == "sd2":
                prediction = probed_prediction(loaded.unet)
                loaded.prediction_source = PROBED
            return _predicting(loaded, prediction, contents.zero_terminal_snr)


def load_vae(path: Path, own: Any, dtype: torch.dtype) -> Any:
    """Load a VAE in place of a model's own, on the CPU.

    Args:
        path: a ``.safetensors`` file in the original or in diffusers' layout, or the folder of a
            VAE or of a whole model of diffusers.
        own: the model's VAE, which the new one must be like.

    Raises:
        CheckpointError: it can't be read, or has another structure.
    """
    path = Path(path)
    with _explained(path):
        if path.is_dir():
            folder = path / "vae" if (path / "vae").is_dir() else path
            with _quiet():
                return (
                    type(own)
                    .from_pretrained(str(folder), local_files_only=True, torch_dtype=dtype)
                    .eval()
                )
        if path.suffix.lower() != ".safetensors":
            raise CheckpointError("a VAE must be a .safetensors file, or a diffusers folder")
        if not path.is_file():
            raise CheckpointError("there is no such file")

        with torch.device("meta"):  # no memory and no time for random weights
            model = type(own).from_config(own.config)
        _fill(model, "vae", dict(_vae_weights(path, len(own.config["block_out_channels"]))), dtype)
        return model.eval()


def _vae_weights(path: Path, blocks: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors of a file that holds a VAE, alone or within a checkpoint."""
    with safe_open(str(path), framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            inner = name.removeprefix(_PREFIXES["vae"][0])
            yield vae_name(inner, blocks) or inner, file.get_tensor(name)


def checkpoint_family(path: Path, *, configurations: Path | None = None) -> str:
    """The family of a checkpoint, from its header alone: ``sd1``, ``sd2`` or ``sdxl``.

    A diffusers folder whose context has another width (a small model, say) is ``custom``.

    Raises:
        CheckpointError: the file is missing, damaged, of another kind, or lacks a part.
    """
    path, configurations = Path(path), configurations or CONFIGURATIONS
    with _explained(path):
        if path.is_dir():
            return family_of_folder(path, configurations)
        return family_of_file(read_contents(path), configurations)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns any exception inside into a one-line ``CheckpointError`` that begins with the file's
    name.
    """
    name = printable(path.name or str(path))
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}") from error.__cause__
    except ModuleNotFoundError as error:
        library = (error.name or "a library").split(".")[0]
        raise CheckpointError(
            f"{name}: {library} is needed: pip install diffusers transformers"
        ) from error
    except Exception as error:  # whatever diffusers and transformers may raise over a file
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise CheckpointError(f"{name}: it can't be loaded ({reason})") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings, log lines or progress bars of the libraries inside; their settings come back."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loggers = [
            importlib.import_module(f"{library}.utils.logging")
            for library in ("diffusers", "transformers")
        ]
        before = [
            (logger, logger.get_verbosity(), logger.is_progress_bar_enabled()) for logger in loggers
        ]

        try:
            for logger in loggers:
                logger.set_verbosity_error()
                logger.disable_progress_bar()
            yield
        finally:
            for logger, verbosity, bars in before:
                logger.set_verbosity(verbosity)
                if bars:
                    logger.enable_progress_bar()


def _predicting(
    pipeline: Any, prediction: str | None, zero_terminal_snr: bool = False
) -> DiffusionPipeline:
    changes: dict[str, Any] = {"prediction_type": prediction} if prediction else {}
    if zero_terminal_snr:
        changes |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    if changes:
        pipeline.scheduler = type(pipeline.scheduler).from_config(
            pipeline.scheduler.config, **changes
        )
    loaded: DiffusionPipeline = pipeline
    return loaded


def _load_folder(folder: Path, dtype: torch.dtype) -> DiffusionPipeline:
    from diffusers import DiffusionPipeline

    options: dict[str, Any] = {}
    if "safety_checker" in read_json(folder / "model_index.json"):
        options = {"safety_checker": None, "requires_safety_checker": False}
    weights = [file.name for file in (folder / "unet").glob("diffusion_pytorch_model*")]
    if weights and all(".fp16." in name for name in weights):  # downloaded in half precision only
        options["variant"] = "fp16"
    pipeline: DiffusionPipeline = DiffusionPipeline.from_pretrained(
        str(folder), local_files_only=True, torch_dtype=dtype, **options
    )
    return pipeline


def _load_file(path: Path, configuration: Path, dtype: torch.dtype) -> DiffusionPipeline:
    index = read_json(configuration / "model_index.json")
    pipeline_class = getattr(importlib.import_module("diffusers"), index.pop("_class_name"))
    parts: dict[str, Any] = {}
    for name, value in index.items():
        if not isinstance(value, list):  # an option of the pipeline
            parts[name] = value
        elif value[0] is None:
            parts[name] = None
        else:
            component = getattr(importlib.import_module(value[0]), value[1])
            parts[name] = _component(component, name, path, configuration / name, dtype)
    pipeline: DiffusionPipeline = pipeline_class(**parts)
    return pipeline


def _component(component: Any, name: str, path: Path, settings: Path, dtype: torch.dtype) -> Any:
    if name.startswith("tokenizer"):
        return build_tokenizer(settings)
    if name == "scheduler":
        return component.from_config(read_json(settings / "scheduler_config.json"))
    config = read_json(settings / "config.json")
    with torch.device("meta"):  # no memory and no time for random weights
        if name.startswith("text_encoder"):
            model = component(component.config_class.from_dict(config))
        else:
            model = component.from_config(config)
    _fill(model, name, dict(_weights(path, name, config)), dtype)
    return model.eval()


def _weights(
    path: Path, component: str, config: dict[str, Any]
) -> Iterator[tuple[str, torch.Tensor]]:
    """A component's tensors from the file, under the names that diffusers and transformers give
    them.
    """
    with safe_open(str(path), framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            prefix = next((p for p in _PREFIXES[component] if name.startswith(p)), None)
            if prefix is None:
                continue

            inner = name.removeprefix(prefix)
            if component.startswith("text_encoder"):
                yield from text_weights(inner, file.get_tensor(name))
            elif component == "unet":
                yield unet_name(inner, config["layers_per_block"]) or inner, file.get_tensor(name)
            elif (new := vae_name(inner, len(config["block_out_channels"]))) is not None:
                yield new, file.get_tensor(name)


def _fill(
    model: torch.nn.Module, component: str, weights: dict[str, torch.Tensor], dtype: torch.dtype
) -> None:
    """Give a model without memory its weights, in place, each of them cast and copied.

    Raises:
        CheckpointError: a tensor is missing or of another shape, or the UNet has more of them.
    """
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    wanted = {
        name.removeprefix("text_model."): name for name in shapes
    }  # transformers 5.6 dropped that prefix
    missing, more = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    if missing or (more and component == "unet"):
        raise CheckpointError(
            f"its {component} has a different structure from {type(model).__name__}: "
            f"{len(missing)} tensors are missing, {len(more)} unknown "
            f"({printable((missing or more)[0])}, …): is it a finetune of a public model?"
        )

    state = {home: _shaped(weights.pop(name), shapes[home], home) for name, home in wanted.items()}
    model.load_state_dict(
        {home: tensor.to(dtype, copy=True) for home, tensor in state.items()}, assign=True
    )

    for module in model.modules():
        if isinstance(
            ids := getattr(module, "position_ids", None), torch.Tensor
        ):  # computed, never stored
            module.position_ids = torch.arange(ids.shape[-1]).expand(1, -1)

    if empty := [name for name, buffer in model.named_buffers() if buffer.is_meta]:
        raise CheckpointError(
            f"this version of transformers has an unknown {empty[0]}: install an older one"
        )


def _shaped(tensor: torch.Tensor, shape: torch.Size, name: str) -> torch.Tensor:
    """The tensor with the model's axes: linear layers and 1x1 convolutions differ in axes of length
    one.
    """
    if [n for n in tensor.shape if n != 1] != [n for n in shape if n != 1]:
        raise CheckpointError(
            f"{name} is {tuple(tensor.shape)}, not {tuple(shape)}: it is a model of a different "
            "size"
        )
    return tensor.reshape(shape)
