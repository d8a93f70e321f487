"""What can be checked of a run before anything is encoded, so that nobody waits for an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..engine.network import Hypernetwork
from .checkpoints import check_fits, check_gains
from .optimisers import build_optimiser
from .processes import World
from .settings import TrainingSettings


def check_options(network: Hypernetwork, settings: TrainingSettings) -> None:
    """Check the optimiser and its options, and the batch against the processes.

    Raises:
        TrainingSettingsError: with what is wrong.
    """
    _optimiser_name(network, settings)
    World().share(settings.batch)


def check_state(
    state: dict[str, Any], network: Hypernetwork, settings: TrainingSettings, folder: Path
) -> None:
    """Check that a run can be continued with this network and these settings.

    Raises:
        TrainingStateError: it was begun with others.
    """
    name = _optimiser_name(network, settings)
    check_fits(state, list(network.parameters()), name, folder, network.structure)
    check_gains(state, settings.gains, folder)


def _optimiser_name(network: Hypernetwork, settings: TrainingSettings) -> str:
    # Built and thrown away: only the optimiser itself knows whether it takes these options.
    parameters = list(network.parameters())
    optimiser = build_optimiser(
        settings.optimiser, parameters, settings.weight_decay, settings.options
    )
    return type(optimiser).__name__
