"""As little of a webui as the panel needs, under whichever gradio runs it: prompts, the panel, and
a list of networks.

``python panel_app.py PORT`` serves it. Scripts and styles get into the page the way AUTOMATIC1111
puts them there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
import uvicorn
from fastapi import FastAPI
from fastapi.responses import FileResponse
from gradio import routes

from hypernetworks.ui.panel import panel

assert "torch" not in sys.modules, "the panel needs no torch"

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [f"/javascript/{path.name}" for path in sorted((ROOT / "javascript").glob("*.js"))]
FILES = {**dict.fromkeys(SCRIPTS, "text/javascript"), "/style.css": "text/css"}
PASTED = "pasted <hypernet:from python:0.3> text"
NETWORKS: list[dict[str, Any]] = [
    {"name": "ink", "preferred_multiplier": None, "activation_text": ""},
    {"name": "sepia", "preferred_multiplier": 0.6, "activation_text": "old photo"},
    {"name": "styles/night (v2.1)", "preferred_multiplier": None, "activation_text": None},
    {
        "name": "a & b 🎨 [x] 'quoted' \"twice\"",
        "preferred_multiplier": None,
        "activation_text": "",
    },
    {
        "name": "<img src=x onerror=window.hacked=1>",
        "preferred_multiplier": None,
        "activation_text": "",
    },
    {"name": "ünï=cödé", "preferred_multiplier": None, "activation_text": ""},
]


def build() -> gr.Blocks:
    """Two tabs with a prompt each, and a button that tells what Python has of it."""
    with gr.Blocks(title="Panel", analytics_enabled=False) as page, gr.Tabs(elem_id="tabs"):
        for tab in ("txt2img", "img2img"):
            with gr.TabItem(tab, id=tab, elem_id=f"tab_{tab}"):
                prompt = gr.Textbox(label="Prompt", lines=3, elem_id=f"{tab}_prompt")
                gr.Slider(
                    1, 150, 20, step=1, label="Steps", interactive=True, elem_id=f"{tab}_steps"
                )
                panel(tab)
                told = gr.Textbox(label="What Python has", lines=2, elem_id=f"{tab}_told")
                gr.Button("Tell", elem_id=f"{tab}_tell").click(
                    lambda text: f"told: {text}", prompt, told
                )
                gr.Button("Paste", elem_id=f"{tab}_paste").click(lambda: PASTED, None, prompt)
    return page


def inject_files() -> None:
    """Our scripts go into the page's head in the order of their names, our style to its end."""
    original = routes.templates.TemplateResponse
    scripts = "".join(f'<script src="{path}"></script>' for path in SCRIPTS)

    def respond(*args: Any, **kwargs: Any) -> Any:
        response = original(*args, **kwargs)
        head, style = (
            f"{scripts}</head>".encode(),
            b'<link rel="stylesheet" href="/style.css"></body>',
        )
        response.body = response.body.replace(b"</head>", head).replace(b"</body>", style)
        response.init_headers()
        return response

    routes.templates.TemplateResponse = respond


def serve(port: int) -> None:
    """Serve page, files and the API's stub on this machine."""
    app = FastAPI()
    for path, kind in FILES.items():
        app.get(path)(lambda path=path, kind=kind: FileResponse(f"{ROOT}{path}", media_type=kind))
    app.get("/hypernetworks/v1/list")(lambda: NETWORKS)
    app.post("/hypernetworks/v1/refresh")(lambda: {"found": len(NETWORKS)})
    inject_files()
    uvicorn.run(
        gr.mount_gradio_app(app, build(), path="/"),
        host="127.0.0.1",
        port=port,
        log_level="warning",
    )


if __name__ == "__main__":
    serve(int(sys.argv[1]))
