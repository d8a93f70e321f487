"""Talks to a running webui: its API, and the probe's routes where it is there."""

from __future__ import annotations

import base64
import io
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from webui_recordings import Recording

TIMEOUT = 600
"""Seconds for one request; a checkpoint may have to be loaded."""


class ApiError(RuntimeError):
    """The webui answered with an error.

    Attributes:
        status: the HTTP status.
        text: what it said.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text[:2000]}")
        self.status, self.text = status, text


@dataclass(frozen=True)
class Made:
    """The answer to one generation.

    Attributes:
        pictures: RGB, as whole numbers, in the API's order.
        info: the API's ``info``.
    """

    pictures: list[np.ndarray[Any, Any]]
    info: dict[str, Any]

    @property
    def picture(self) -> np.ndarray[Any, Any]:
        """The first one."""
        return self.pictures[0]

    @property
    def infotext(self) -> str:
        """Of the first one."""
        return str(self.info["infotexts"][0])

    @property
    def messages(self) -> str:
        """What our extension told the user, as the API has it."""
        return str(self.info["extra_generation_params"].get("Hypernet messages", ""))


def difference(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> int:
    """The largest difference of any channel of any pixel, in 1/255."""
    assert one.shape == other.shape
    return int(abs(one - other).max())


class Webui:
    """One webui.

    Args:
        url: where it listens.
        folder: of the test's hypernetworks; ``None`` where it has others.
        log: its output; ``None`` where the tests did not start it.
    """

    def __init__(self, url: str, folder: Path | None = None, log: Path | None = None) -> None:
        self.url, self.folder, self.log = url.rstrip("/"), folder, log
        self._remembered: dict[str, Made] = {}

    def get(self, path: str) -> Any:
        """The JSON behind a path."""
        return self._request(path, None)

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The answer to a POST."""
        return self._request(path, body or {})

    def _request(self, path: str, body: dict[str, Any] | None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raise ApiError(error.code, error.read().decode(errors="replace")) from error

    def txt2img(self, prompt: str, **more: Any) -> Made:
        """A picture of 64x64 in 2 steps with seed 1, unless told otherwise."""
        return self._make("/sdapi/v1/txt2img", prompt, more)

    def img2img(self, prompt: str, picture: np.ndarray[Any, Any], **more: Any) -> Made:
        """From a picture; ``mask`` is one, too."""
        if "mask" in more:
            more["mask"] = encoded(more["mask"])
        return self._make("/sdapi/v1/img2img", prompt, {"init_images": [encoded(picture)], **more})

    def _make(self, path: str, prompt: str, more: dict[str, Any]) -> Made:
        body = {
            "prompt": prompt,
            "width": 64,
            "height": 64,
            "steps": 2,
            "seed": 1,
            "sampler_name": "Euler a",
            "cfg_scale": 7,
        }
        answer = self.post(path, body | more)
        return Made([decoded(text) for text in answer["images"]], json.loads(answer["info"]))

    def known(self, prompt: str, **more: Any) -> Made:
        """Like :meth:`txt2img`, made once per session."""
        key = json.dumps([prompt, more], sort_keys=True)
        if key not in self._remembered:
            self._remembered[key] = self.txt2img(prompt, **more)
        return self._remembered[key]

    def state(self, *, collect: bool = False) -> dict[str, Any]:
        """What the probe sees."""
        return dict(self.get(f"/probe/state?collect={collect}"))

    def record(self, only: str = "attn") -> None:
        """Record the contexts of the next generation at projections whose path matches a regular
        expression."""
        self.post("/probe/arm", {"only": only})

    def recorded(self, path: Path) -> Recording:
        """Stop recording and fetch it."""
        import torch

        assert self.folder is not None
        self.post("/probe/recorded", {"path": str(path)})
        return Recording(torch.load(path, weights_only=True), self.folder)

    def options(self, **values: Any) -> None:
        """Change settings."""
        self.post("/sdapi/v1/options", values)

    def refresh(self) -> None:
        """Let our extension look at its folders again."""
        self.post("/hypernetworks/v1/refresh")


def encoded(picture: np.ndarray[Any, Any]) -> str:
    """A picture as the API takes it: base64 of a PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture.astype(np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def decoded(text: str) -> np.ndarray[Any, Any]:
    """The picture in an answer of the API."""
    from PIL import Image

    return np.asarray(
        Image.open(io.BytesIO(base64.b64decode(text.split(",")[-1]))).convert("RGB")
    ).astype(int)
