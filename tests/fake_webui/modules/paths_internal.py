"""Where the webui is."""

import os

from modules import HOST

script_path = os.environ["FAKE_WEBUI_ROOT"]
# SD.Next names its folders from the folder that it was started in, which is its own.
data_path = "" if HOST == "sdnext" else script_path
models_path = os.path.join(data_path, "models")  # noqa: PTH118
extensions_dir = os.path.join(data_path, "extensions")  # noqa: PTH118
