"""What our nodes, and the fake ComfyUI, take for granted of ComfyUI's source code.

Nothing of it runs.

``HYPERNETWORKS_WEBUI_SOURCES`` names a folder with ``comfyui/``; without it, everything here is
skipped.
"""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

SOURCE = Path(os.environ.get("HYPERNETWORKS_WEBUI_SOURCES", ""), "comfyui")
FAKE = Path(__file__).parents[1] / "fake_comfyui"
pytestmark = pytest.mark.skipif(
    not (SOURCE / "comfy_extras").is_dir(), reason="HYPERNETWORKS_WEBUI_SOURCES has no comfyui"
)

OURS = ("comfy/__init__.py", "comfy_api/__init__.py", "comfy_api/latest.py")
"""Files of the fake without a counterpart of the same content."""
NOT_THEIRS = {
    ("CFGGuider", name) for name in ("__init__", "_wrappers", "sample", "evaluate", "outer_sample")
} | {("PromptServer", "__init__"), ("TransformerOptionsHook", "__init__")}
"""Methods whose arguments the fake may choose."""
CHOSEN = ("FOLDERS", "OTHER_FOLDERS", "INTERRUPTED", "instance", "PromptServer.instance")
FILES = sorted(p.relative_to(FAKE).as_posix() for p in FAKE.rglob("*.py"))


def definitions(path: Path) -> dict[tuple[str, str], list[str]]:
    """``(class, name)`` of each class, attribute, function and method -> names of its arguments."""
    found: dict[tuple[str, str], list[str]] = {}

    def visit(body: list[ast.stmt], owner: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                found[owner, node.name] = []
                visit(node.body, node.name)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found[owner, node.name] = [argument.arg for argument in node.args.args]
            elif isinstance(node, ast.Assign):
                for target in node.targets:
                    found[owner, ast.unparse(target)] = []
            elif isinstance(node, ast.AnnAssign):
                found[owner, ast.unparse(node.target)] = []
            elif isinstance(node, (ast.If, ast.Try)):
                visit(node.body, owner)

    visit(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return found


@pytest.mark.parametrize("path", [path for path in FILES if path not in OURS])
def test_the_fake_has_nothing_that_comfyui_lacks(path: str) -> None:
    theirs = definitions(SOURCE / path)
    for key, arguments in definitions(FAKE / path).items():
        if key[1].startswith("_") or key in NOT_THEIRS or key[1] in CHOSEN:
            continue
        assert key in theirs, f"{path} has no {'.'.join(filter(None, key))}"
        if arguments and theirs[key]:
            known = [a for a in arguments if not a.startswith("_")]
            assert [a for a in theirs[key] if a in known] == known, key


def arguments(path: str, owner: str, name: str) -> list[str]:
    return definitions(SOURCE / path)[owner, name]


def test_wrappers_get_what_ours_read() -> None:
    """By position: the third argument, or the fifth."""
    guider = "comfy/samplers.py", "CFGGuider"
    assert arguments(*guider, "outer_sample")[:5] == [
        *("self", "noise", "latent_image", "sampler", "sigmas"),
    ]
    assert arguments(*guider, "predict_noise")[:4] == ["self", "x", "timestep", "model_options"]
    run = arguments("comfy/model_base.py", "BaseModel", "_apply_model")
    assert run.index("transformer_options") == 6  # self first
    text = (SOURCE / "comfy/samplers.py").read_text(encoding="utf-8")
    assert "executor.execute(noise, latent_image, sampler, sigmas, denoise_mask" in text
    assert ".execute(x, timestep, model_options, seed)" in text


def test_a_conditioning_with_hooks_of_its_own_runs_alone() -> None:
    """All rows of a UNet call have the same hooks, so they need not be told apart."""
    text = (SOURCE / "comfy/samplers.py").read_text(encoding="utf-8")
    assert "hooked_to_run.setdefault(p.hooks, list())" in text
    assert "transformer_options = model.current_patcher.apply_hooks(hooks=hooks)" in text


def test_a_linear_layer_does_no_more_than_dense_py_asks_for() -> None:
    tree = ast.parse((SOURCE / "comfy/ops.py").read_text(encoding="utf-8"))
    owner = next(
        n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "disable_weight_init"
    )
    linear = next(n for n in owner.body if isinstance(n, ast.ClassDef) and n.name == "Linear")
    forward = next(n for n in linear.body if isinstance(n, ast.FunctionDef) and n.name == "forward")
    condition = next(n for n in ast.walk(forward) if isinstance(n, ast.If)).test
    names = {n.attr for n in ast.walk(condition) if isinstance(n, ast.Attribute)}
    assert names == {"comfy_cast_weights", "weight_function", "bias_function"}


def test_the_patcher_keeps_attachments_and_wrappers_in_clones() -> None:
    methods = definitions(SOURCE / "comfy/model_patcher.py")
    for name, expected in {
        "set_attachments": ["self", "key", "attachment"],
        "get_attachment": ["self", "key"],
        "add_wrapper_with_key": ["self", "wrapper_type", "key", "wrapper"],
        "remove_wrappers_with_key": ["self", "wrapper_type", "key"],
        "clone": ["self"],
    }.items():
        assert methods["ModelPatcher", name][: len(expected)] == expected
    text = (SOURCE / "comfy/model_patcher.py").read_text(encoding="utf-8")
    assert "n.attachments[k] = self.attachments[k]" in text


def test_samplers_that_look_ahead_are_known() -> None:
    """Those of k-diffusion that evaluate the model at a sigma of a later step."""
    path = SOURCE / "comfy/k_diffusion/sampling.py"
    ahead = {
        node.name
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
        for call in ast.walk(node)
        if isinstance(call, ast.Call)
        and ast.unparse(call.func) == "model"
        and len(call.args) > 1
        and "sigmas[i + " in ast.unparse(call.args[1])
    }
    assert ahead <= {"sample_heun", "sample_heunpp2"}, ahead
    assert "sample_heun" in ahead
