"""The built-in implementation: lists and reads ``.pt`` only."""

from pathlib import Path

from modules import shared


class Hypernetwork:
    """One, for the built-in training."""

    def __init__(self, name=None):
        self.name, self.filename = name, None

    def load(self, filename):
        """Read a file."""
        self.filename = filename


def list_hypernetworks(path):
    """Path by stem; the last one of a stem."""
    return {
        file.stem: str(file) for file in sorted(Path(path).rglob("*.pt")) if file.stem != "None"
    }


def load_hypernetwork(name):
    """By name, for the built-in tag."""
    network = Hypernetwork()
    network.load(shared.hypernetworks[name])
    return network
