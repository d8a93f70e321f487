"""SD.Next with a compiled UNet.

Run by ``test_webui_compiled.py`` in a process of its own.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_webui_sdnext import Host, sd  # noqa: F401

from hypernetworks.hosts.webui import host

pytestmark = pytest.mark.parametrize("fake_webui", ["sdnext"], indirect=True)


def test_a_compiled_unet_runs_uncompiled_while_networks_act(sd: Host) -> None:  # noqa: F811
    _, plain = sd.draw("x")
    _, wanted = sd.draw("x <hypernet:ink:1>")
    sd.pipe.unet = torch.compile(sd.pipe.unet, backend="eager")
    sd.draw("x")
    result, drawn = sd.draw("x <hypernet:ink:1>")
    assert all(torch.allclose(a, b) for a, b in zip(drawn, wanted, strict=True))
    assert "runs uncompiled while hypernetworks are active" in result.comments
    calls: list[int] = []

    def backend(graph: Any, _: Any) -> Any:
        calls.append(1)
        return graph.forward

    torch._dynamo.reset()
    sd.pipe.unet = torch.compile(host.live_unet(), backend=backend)
    result, again = sd.draw("x")
    assert calls, "it is compiled again afterwards"
    assert all(torch.allclose(a, b) for a, b in zip(again, plain, strict=True))
    torch._dynamo.reset()
