"""The command ``create``, and the arguments that describe a new network."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..console import pasted_path, say
from ..engine.families import BY_KEY
from ..errors import StructureError
from .outputs import refuse_existing
from .values import floats, integers

if TYPE_CHECKING:
    from ..engine.structure import Structure
    from ..training.creation import Creation

PURPOSES = ("style", "subject", "small")
"""Names of the presets, repeated here because their own module loads torch, which is slow."""

STRUCTURE = (
    *("layers", "activation", "activate_output", "layer_norm", "dropout"),
    *("initialisation", "random_last", "self_attention", "network_seed"),
)
"""The options of a new network, by their names in the namespace."""


def add_create(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``create``."""
    parser.add_argument("name", help="the name to use in tags")
    parser.add_argument(
        "-o",
        "--folder",
        type=pasted_path,
        default=Path(),
        help="folder for NAME.pt (default: the current one)",
    )
    parser.add_argument(
        "--family",
        choices=sorted(BY_KEY),
        default="sd1",
        help="family of the base model (default: sd1)",
    )
    parser.add_argument(
        "--widths",
        type=integers,
        help="context widths instead of the family's, such as 768,320,640,1280",
    )
    add_structure(parser)

    parser.add_argument(
        "--format",
        choices=("pt", "safetensors"),
        default="pt",
        help="format of the file (default: pt, which every webui reads)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.set_defaults(command=_run)


def add_structure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that describe a new network; the preset has their default values."""
    group = parser.add_argument_group("the new network (default: the preset's values)")
    group.add_argument(
        "--preset",
        choices=PURPOSES,
        default="style",
        help="purpose of the network (default: style)",
    )
    group.add_argument("--layers", type=floats, help="layer structure, such as 1,2,1")
    group.add_argument("--activation", help="linear, relu, leakyrelu, elu, swish, tanh, sigmoid, …")
    group.add_argument(
        "--activate-output",
        action="store_true",
        help="also apply the activation after the last layer",
    )
    group.add_argument(
        "--layer-norm",
        action="store_true",
        help="add a layer norm after each linear layer and its activation",
    )

    group.add_argument(
        "--dropout",
        type=floats,
        help="dropout after each layer, such as 0,0.3,0; the first and last must be 0",
    )
    group.add_argument(
        "--initialisation",
        metavar="NAME",
        help="Normal (default), XavierUniform, XavierNormal, KaimingUniform or KaimingNormal",
    )
    group.add_argument(
        "--random-last",
        action="store_true",
        help="initialise the last layer like the others, not with zeros",
    )
    # Two options of one field, as presets differ in it.
    group.add_argument(
        "--text-only",
        dest="self_attention",
        action="store_const",
        const=False,
        help="no networks for self-attention",
    )
    group.add_argument(
        "--self-attention",
        action="store_const",
        const=True,
        help="networks for self-attention as well as for the text, also with --preset small",
    )
    group.add_argument(
        "--network-seed",
        type=int,
        metavar="SEED",
        help="seed of the initialisation (default: 0)",
    )


def _run(options: argparse.Namespace) -> int:
    from ..engine.initialising import create_network, parameter_count
    from ..files import write
    from ..training.creation import check_name

    # People write the file's name where the network's is asked for.
    name = options.name.removesuffix(f".{options.format}")
    check_name(name)
    creation = creation_of(options)
    widths = options.widths or BY_KEY[options.family].widths
    # Self-attention takes the widths of feature maps, which --widths may name on purpose.
    if not creation.self_attention and options.widths is None:
        widths = (BY_KEY[options.family].text_width,)
    # The size is printed before the work: large networks are usually a mistake in --layers.
    count = parameter_count(creation.structure, widths)

    path = options.folder / f"{name}.{options.format}"
    refuse_existing([path], overwrite=options.overwrite)
    say(
        f"{count:,} parameters, {count * 4 / 2**20:.1f} MiB, for the widths "
        f"{', '.join(map(str, sorted(widths)))}"
    )

    network = create_network(
        name,
        creation.structure,
        widths,
        initialisation=creation.initialisation,
        zero_last=creation.zero_last,
        seed=creation.seed,
    )
    write(network, path)
    say(str(path))
    return 0


def creation_of(options: argparse.Namespace) -> Creation:
    """The new network that the options describe, with the preset's values for the rest."""
    from ..training.creation import Creation
    from ..training.settings import PRESETS

    preset, self_attention = PRESETS[options.preset], options.self_attention
    return Creation(
        structure=_structure(options),
        initialisation=options.initialisation or "Normal",
        zero_last=not options.random_last,
        self_attention=preset.self_attention if self_attention is None else self_attention,
        seed=options.network_seed or 0,
    )


def _structure(options: argparse.Namespace) -> Structure:
    from ..engine.structure import Structure
    from ..training.settings import PRESETS

    preset = PRESETS[options.preset]
    layers = options.layers or preset.layer_structure
    # The preset's dropout has an entry per layer, so it fits its own number of layers only.
    dropout = options.dropout
    if dropout is None:
        dropout = preset.dropout if len(preset.dropout) == len(layers) else (0.0,) * len(layers)

    if dropout[0] or dropout[-1]:
        raise StructureError(
            f"AUTOMATIC1111 can't read the dropout {list(dropout)}: begin and end with 0"
        )

    return Structure(
        tuple(layers),
        (options.activation or preset.activation).lower(),
        activate_output=options.activate_output,
        layer_norm=options.layer_norm,
        dropout=tuple(dropout),
    )
