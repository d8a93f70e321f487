"""The report on a network, as labels and texts for the command line, the studio and webuis."""

from __future__ import annotations

from ..engine.multiplier import format_number
from .inspection import Inspection

_SIDES = {"k": "keys", "v": "values"}


def report_rows(found: Inspection) -> dict[str, str]:
    """Plain texts by label, in the order of the report.

    Norms and warnings are not included, because each page shows them in its own way.
    """
    return {
        "Model family": found.family,
        "Context widths": ", ".join(map(str, found.widths)),
        "Layer structure": ", ".join(map(format_number, found.layer_structure)),
        "Activation": _activation(found),
        "Layer norm": "yes" if found.layer_norm else "no",
        "Dropout in training": _dropout(found),
        "Parameters": f"{found.parameters:,} ({found.dtype}, {found.bytes / 2**20:.1f} MiB)",
        "Name in the file": found.provenance["name"] or "none",
        "Trained": f"{found.provenance['step']:,} steps on {_checkpoint(found)}",
        "Initialization": found.provenance["weight_initialization"],
        "Remarks": found.provenance["optional"] or "none",
    }


def norm_rows(found: Inspection) -> dict[str, tuple[str, ...]]:
    """Norms of the linear layers, first to last, by MLP, such as "768 keys"."""
    return {
        f"{layers.width} {_SIDES[layers.side]}": tuple(map(format_norm, layers.norms))
        for layers in found.norms
    }


def format_norm(norm: float) -> str:
    """A norm with three significant digits; "nan" or "inf" for those of a damaged file."""
    return f"{norm:.3g}"


def _activation(found: Inspection) -> str:
    if found.activate_output and found.activation != "linear":
        return f"{found.activation}, after the last layer too"
    return found.activation


def _dropout(found: Inspection) -> str:
    return ", ".join(map(format_number, found.dropout)) if any(found.dropout) else "none"


def _checkpoint(found: Inspection) -> str:
    """Name and hash as webuis write them: ``v1-5 [6ce0161689]``."""
    name, short = found.provenance["checkpoint_name"], found.provenance["checkpoint_hash"]
    if name and short:
        return f"{name} [{short}]"

    return str(name or short or "an unknown checkpoint")
