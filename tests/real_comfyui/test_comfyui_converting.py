"""What the nodes that write files write, loaded by ComfyUI's own nodes."""

from __future__ import annotations

from comfyui_server import ComfyUI
from graphs import LINEAR, Node, apply, graph, latent, relative, stack, write


def written(comfyui: ComfyUI, kind: str, filename: str, **inputs: str | int) -> str:
    """The file that a node writes from a stack."""
    nodes: dict[str, tuple[str, dict[str, object]]] = {
        "0": stack(name_1="line.pt", strength_1=0.7),
        "1": (kind, {"stack": ["0", 0], "filename": filename, **inputs}),
    }
    asked = {k: {"class_type": name, "inputs": given} for k, (name, given) in nodes.items()}
    history = comfyui.run(asked)
    assert history["status"]["status_str"] == "success", history["status"]
    line: str = history["outputs"]["1"]["text"][0]
    return line.rpartition("/")[2]


def test_files_of_a_stack_do_what_the_stack_does(comfyui: ComfyUI) -> None:
    write(comfyui, "line", LINEAR)
    base = comfyui.checkpoints["sd1"]
    nodes: dict[str, Node] = {"9": apply("line.pt", strength=0.7)}
    plain, wanted = latent(comfyui, graph(comfyui)), latent(comfyui, graph(comfyui, "9", nodes))

    how: dict[str, str | int] = {"format": "kohya", "rank": 0, "dtype": "fp32"}
    name = written(comfyui, "HypernetworkToLora", "line", checkpoint=base, **how)
    inputs = {"model": ["0", 0], "lora_name": name, "strength_model": 1.0}
    found = latent(comfyui, graph(comfyui, "9", {"9": ("LoraLoaderModelOnly", inputs)}))
    assert relative(found, wanted, plain) < 1e-4

    merged = written(comfyui, "HypernetworkMerge", "merged", dtype="fp32")
    nodes = {"9": apply(merged, strength=1.0)}
    assert relative(latent(comfyui, graph(comfyui, "9", nodes)), wanted, plain) < 1e-4

    baked = written(comfyui, "HypernetworkBake", "baked", checkpoint=base)
    nodes = {"9": ("CheckpointLoaderSimple", {"ckpt_name": baked})}
    # The checkpoint's own type rounds the sum once.
    assert relative(latent(comfyui, graph(comfyui, "9", nodes)), wanted, plain) < 0.05
    again = written(comfyui, "HypernetworkBake", "baked", checkpoint=base)
    assert (baked, again) == ("baked.safetensors", "baked_2.safetensors")
