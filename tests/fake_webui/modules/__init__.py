"""Stands for a webui's ``modules`` package."""

import os

HOST = os.environ["FAKE_WEBUI_HOST"]
HAS_HYPERNETWORKS = HOST in ("a1111", "forge", "reforge")
