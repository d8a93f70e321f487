"""The options of the command ``train``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..console import pasted_path
from .create import add_structure
from .model import add_checkpoint, add_device, add_prediction
from .values import floats, integers, option, size

SPELLED_BESIDE = {
    "fit": "--buckets", "step": "--size", "suffix": "--format", "previews": "--preview",
}  # fmt: skip
"""Options of settings that have another name on the command line."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``train``; the preset has most of their default values."""
    parser.add_argument("name", nargs="?", help="name of the network and of its run's folder")
    parser.add_argument(
        "pictures",
        type=pasted_path,
        nargs="*",
        metavar="IMAGES",
        help=(
            "folders of images, or of sub-folders named 10_name, with captions in .txt files or "
            "file names"
        ),
    )
    parser.add_argument(
        "--runs", type=pasted_path, default=Path("runs"), help="folder of runs (default: runs)"
    )
    add_checkpoint(parser)
    add_prediction(parser)
    add_device(parser, precision=False)
    parser.add_argument(
        "--network",
        type=pasted_path,
        help="hypernetwork file to continue from, instead of a new network",
    )
    parser.add_argument(
        "--format",
        choices=("pt", "safetensors"),
        default="pt",
        help="format of the files (default: pt, which every webui reads)",
    )
    parser.add_argument("--restart", action="store_true", help="delete an earlier run of this name")
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be trained on, then stop"
    )
    parser.add_argument(
        "--config",
        type=pasted_path,
        action="append",
        metavar="FILE",
        help="options in a TOML file, such as a run's run.toml or a dataset file of kohya's; "
        "repeatable: the runs of all files, one after the other",
    )
    add_structure(parser)
    _add_pictures(parser.add_argument_group("images and captions"))
    _add_settings(parser.add_argument_group("training"))
    _add_previews(parser.add_argument_group("previews"))

    # Errors name a setting by its field; the user knows the option.
    spelled = {a.dest: a.option_strings[0] for a in parser._actions if a.option_strings}
    parser.set_defaults(
        hypernetworks=[], sources=(), parser=parser, spelled=spelled | SPELLED_BESIDE
    )


def _add_pictures(group: Any) -> None:
    _add_shapes(group)
    _add_captions(group)

    group.add_argument(
        "--repeats",
        type=integers,
        default=(),
        help="how often the images of each folder come in an epoch, such as 10,1 for two folders",
    )
    group.add_argument(
        "--weights",
        dest="folder_weights",  # `weights` is the type of the model's
        type=floats,
        default=(),
        help="weight of the losses of each folder's images, such as 1,0.5",
    )
    group.add_argument(
        "--masks",
        type=pasted_path,
        metavar="FOLDER",
        help="images of the same names; what is black there is not learned",
    )
    group.add_argument(
        "--prior",
        type=pasted_path,
        action="append",
        metavar="FOLDER",
        help="images of what the model knew before and shall keep; repeatable",
    )
    group.add_argument(
        "--cache",
        type=pasted_path,
        metavar="FOLDER",
        help="keep encoded images and captions there between runs",
    )
    group.add_argument(
        "--skip-bad", action="store_true", help="leave out images that can't be read"
    )
    group.add_argument(
        "--validation",
        "--held-out",
        type=float,
        help="share of images kept for the validation loss (default: 0.1)",
    )


def _add_shapes(group: Any) -> None:
    group.add_argument(
        "--size",
        "--resolution",
        type=size,
        help="size of the images: 512 or 512x768 (default: the model's own)",
    )
    group.add_argument(
        "--buckets", action="store_true", help="keep aspect ratios instead of cropping to one size"
    )
    group.add_argument(
        "--crops",
        type=int,
        help="crops of each image, spread over what doesn't fit (default: 1)",
    )

    group.add_argument(
        "--flip", action="store_true", default=None, help="also train on mirrored images"
    )
    group.add_argument(
        "--alpha", action="store_true", default=None, help="don't learn transparent areas"
    )
    group.add_argument(
        "--spread",
        action="store_true",
        default=None,
        help="sample latents from the VAE's distribution each time, instead of using its mean",
    )


def _add_captions(group: Any) -> None:
    group.add_argument(
        "--template",
        help='captions, such as "a picture of [name], [filewords]", or a .txt file of such lines',
    )
    group.add_argument(
        "--shuffle",
        action="store_true",
        default=None,
        help="shuffle the tags of a caption each time",
    )
    group.add_argument(
        "--tag-dropout", type=float, help="probability of leaving out each tag of a caption"
    )
    group.add_argument("--prefix", "--caption-prefix", help="text before every caption")
    group.add_argument("--suffix", "--caption-suffix", help="text after every caption")
    group.add_argument("--trigger", metavar="WORD", help="a word that every caption begins with")
    group.add_argument(
        "--keep-tokens", type=int, help="tags at the beginning that stay there, with --shuffle"
    )
    group.add_argument(
        "--wildcards",
        "--enable-wildcard",
        action="store_true",
        default=None,
        help="{red|blue} in a caption means one of these, drawn each time",
    )
    group.add_argument(
        "--max-tokens",
        "--max-token-length",
        type=int,
        help="longest caption that is read, such as 225 (default: what the model reads, 75)",
    )
    group.add_argument(
        "--clip-skip", type=int, help="as in webuis: 2 for the text encoder's last layer but one"
    )
    group.add_argument(
        "--captioner",
        type=pasted_path,
        metavar="FOLDER",
        help="a local image-to-text model of transformers, for images without a caption",
    )

    group.add_argument(
        "--caption-lines",
        action="store_true",
        default=None,
        help="each line of a caption file is a caption; one is chosen at random each time",
    )


def _add_settings(group: Any) -> None:
    """Add the options of the training itself; other trainers' names for them work too."""
    _add_rate(group)
    _add_optimizer(group)
    _add_loss(group)
    _add_saving(group)


def _add_rate(group: Any) -> None:
    group.add_argument(
        "--steps", type=int, help="optimizer steps (default: by the number of images)"
    )
    group.add_argument(
        "--until",
        choices=("steps", "best"),
        help="when to stop; best: when the validation loss has not fallen for six measurements "
        "(default: steps)",
    )

    group.add_argument(
        "--rate",
        "--learning-rate",
        "--lr",
        help='learning rate: 1e-4, or "1e-4:500, 1e-5:2000" for rates up to given steps',
    )
    group.add_argument(
        "--shape",
        "--lr-scheduler",
        help=(
            "schedule of the learning rate: constant, linear or cosine (default: cosine for a "
            "single rate, otherwise constant, as with schedule-free optimizers)"
        ),
    )
    group.add_argument(
        "--warm-up", "--lr-warmup-steps", type=int, help="steps of warm-up (default: 50)"
    )
    group.add_argument("--restarts", type=int, help="how often the decay starts again (default: 0)")


def _add_optimizer(group: Any) -> None:
    group.add_argument(
        "--optimiser",
        "--optimizer",
        help="ScheduleFreeAdamW, name of an optimizer in torch.optim, or one of a package, such as "
        "prodigyopt.Prodigy (default: AdamW; on the miniature ScheduleFreeAdamW)",
    )
    group.add_argument(
        "--option",
        dest="options",
        action="append",
        type=option,
        metavar="NAME=VALUE",
        help="argument of the optimizer; repeat the option for more",
    )
    group.add_argument("--weight-decay", type=float, help="weight decay (default: 0)")
    group.add_argument(
        "--gains",
        help="on: learn how strongly each part of the network acts, ten times as fast as its "
        "weights; off (default: off; on the miniature on)",
    )
    group.add_argument(
        "--batch",
        "--train-batch-size",
        type=int,
        help="images per forward pass, over all processes",
    )
    group.add_argument(
        "--accumulation", "--gradient-accumulation-steps", type=int, help="forward passes per step"
    )
    group.add_argument(
        "--precision", "--mixed-precision", help="precision of the UNet: auto, fp32, bf16 or fp16"
    )

    group.add_argument(
        "--checkpointing",
        "--gradient-checkpointing",
        choices=("auto", "on", "off"),
        nargs="?",
        const="on",
        default="auto",
        help="gradient checkpointing, which saves memory (default: auto, when memory runs out)",
    )
    group.add_argument(
        "--memory",
        choices=("auto", "whole", "fp8", "streamed"),
        default="auto",
        help="how the UNet is stored: whole, in fp8, on the CPU, or what fits (default: auto)",
    )
    group.add_argument(
        "--clip",
        "--max-grad-norm",
        type=float,
        help="largest gradient (default: 1); 0 for no limit",
    )
    group.add_argument("--clip-by", help="what --clip limits: norm (default) or value")


def _add_loss(group: Any) -> None:
    group.add_argument(
        "--min-snr",
        "--min-snr-gamma",
        type=float,
        help="gamma of Min-SNR weighting, usually 5; 0 for none",
    )
    group.add_argument(
        "--debiased",
        "--debiased-estimation-loss",
        action="store_true",
        default=None,
        help="weigh noisy time steps more (debiased estimation)",
    )
    group.add_argument(
        "--loss",
        "--loss-type",
        help="mse (default), or huber, which large single errors affect less",
    )
    group.add_argument(
        "--noise-levels",
        help="uniform (default), or style: train mostly on noisy images, for styles",
    )

    group.add_argument("--noise-offset", type=float, help="strength of offset noise; 0 for none")
    group.add_argument(
        "--ema", type=float, help="decay of the weights' moving average, such as 0.999; 0 for none"
    )

    group.add_argument(
        "--caption-dropout", type=float, help="share of empty captions (default: 0.1)"
    )
    group.add_argument("--seed", type=int, help="seed of everything random in the run (default: 0)")


def _add_saving(group: Any) -> None:
    group.add_argument("--save-every", type=int, metavar="STEPS", help="steps between checkpoints")
    group.add_argument(
        "--tensorboard", action="store_true", help="write event files for TensorBoard"
    )
    group.add_argument("--keep", type=int, help="checkpoints to keep; 0 for all")
    group.add_argument(
        "--watch-every",
        type=int,
        metavar="STEPS",
        help="steps between validation losses; 0 for none",
    )


def _add_previews(group: Any) -> None:
    group.add_argument(
        "--preview",
        dest="previews",
        action="append",
        default=[],
        metavar="PROMPT",
        help="prompt for preview images; repeat the option for more",
    )

    group.add_argument(
        "--preview-every", type=int, metavar="STEPS", help="steps between previews; 0 for none"
    )
    group.add_argument(
        "--preview-seed", type=int, default=0, help="seed of the previews (default: 0)"
    )
    group.add_argument(
        "--preview-steps", type=int, default=20, help="sampling steps of a preview (default: 20)"
    )
    group.add_argument(
        "--preview-file",
        type=pasted_path,
        metavar="FILE",
        help="prompts in kohya's syntax, one a line: PROMPT --n NEGATIVE --w 512 --h 768 --d SEED",
    )
