"""Where the webui is."""

import os

script_path = data_path = os.environ["FAKE_WEBUI_ROOT"]
models_path = f"{data_path}/models"
extensions_dir = f"{data_path}/extensions"
