"""The laws of patching and what folding owes, collected once more: hosts are made on the device
here.
"""

from __future__ import annotations

import laws.test_folding
import laws.test_laws
import pytest
from laws.hosts import Host
from laws.test_folding import *  # noqa: F403
from laws.test_laws import *  # noqa: F403
from laws.test_laws import activation, host, ldm  # noqa: F401

_MADE: dict[str, Host] = {}


@pytest.fixture(autouse=True)
def _hosts_of_this_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The laws keep their hosts: not those of another device."""
    monkeypatch.setattr(laws.test_laws, "_made", _MADE)


@pytest.fixture(autouse=True)
def _every_row_pays(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """That of the folding tests is for those alone: laws fold or not as they are told."""
    if request.function.__module__ == laws.test_folding.__name__:
        monkeypatch.setattr("hypernetworks.patching.folded._REFOLD_ROWS", {"cpu": 1}, raising=False)
