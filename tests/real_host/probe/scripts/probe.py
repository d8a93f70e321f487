"""A tiny webui extension for the tests: looks at the live UNet and hands out what it saw, at
``/probe/…``.

It shares no code with the extension under test. The webui loads it from ``extensions/``; nobody
else should.
"""

import gc
import re

import torch
from fastapi import Body, FastAPI
from modules import scripts, shared
from modules.script_callbacks import on_app_started, on_cfg_denoiser


def live_unet():
    """The UNet that the next step runs, or ``None`` while a webui has none yet."""
    model = shared.sd_model
    patcher = getattr(getattr(model, "forge_objects", None), "unet", None)
    owner = patcher.model if patcher is not None else getattr(model, "model", None)
    unet = getattr(owner, "diffusion_model", None) or getattr(model, "unet", None)
    return unet if isinstance(unet, torch.nn.Module) else None


def host():
    """Which webui this is."""
    if has_module("installer"):
        return "sdnext"
    if not has_module("modules_forge"):
        return "a1111"
    if not has_module("backend"):
        return "reforge"
    return "neo" if has_module("modules_forge.presets") else "forge"


def has_module(name):
    """Whether the webui has this module."""
    from importlib.util import find_spec

    try:
        return find_spec(name) is not None
    except ImportError:
        return False


class ProbeError(RuntimeError):
    """What the probe raises inside the UNet when it is told to."""


class Tap:
    """Listens at ``to_k`` and ``to_v`` of the live UNet: what comes in before all hooks, and what
    arrives."""

    def __init__(self):
        self.wanted, self.fault_at, self.interrupt_at = None, None, None
        self.calls, self.steps, self._undo, self._unet = [], 0, [], None
        self.counting, self.folded, self.dtype = False, [], None

    def follow(self):
        """Be on the live UNet, and on no other, as long as there is something to do."""
        unet = live_unet()
        if unet is self._unet and self._undo:
            return
        self.leave()
        if unet is None or (self.wanted is None and self.fault_at is None):
            return
        self._unet = unet
        self._undo.append(unet.register_forward_pre_hook(self._begin, prepend=True).remove)
        for path, module in unet.named_modules():
            if all(hasattr(module, name) for name in ("to_q", "to_k", "to_v")):
                for side in ("to_k", "to_v"):
                    self._listen(f"{path}.{side}", getattr(module, side))

    def leave(self):
        """Off the UNet."""
        for undo in self._undo:
            undo()
        self._undo, self._unet = [], None

    def step(self, _params):
        """A step begins: the webui may have exchanged its UNet since the last one."""
        self.steps += 1
        if self.counting:
            self.folded.append(stand_ins())
        if self.interrupt_at is not None and self.steps >= self.interrupt_at:
            self.interrupt_at = None
            shared.state.interrupt()
        self.follow()

    def _begin(self, _module, _arguments):
        self.calls.append({})

    def _listen(self, path, projection):
        def before(_module, arguments):
            if self.wanted is not None and re.search(self.wanted, path) and self.calls:
                self.calls[-1][path] = [arguments[0].detach().clone(), None]
                self.dtype = str(arguments[0].dtype)

        def forward(context, *more):
            if (
                self.fault_at is not None
                and len(self.calls) >= self.fault_at
                and "output_blocks.6" in path
            ):
                self.fault_at = None
                raise ProbeError("the probe was told to fail here")
            if self.calls and path in self.calls[-1]:
                self.calls[-1][path][1] = context.detach().clone()
            return kind.forward(projection, context, *more) if own is None else own(context, *more)

        kind, own = type(projection), vars(projection).get("forward")
        self._undo.append(projection.register_forward_pre_hook(before, prepend=True).remove)
        projection.forward = forward
        self._undo.append(
            lambda: vars(projection).update(forward=own) if own else vars(projection).pop("forward")
        )


TAP = Tap()
COMMENTS = []
KEPT = {}
COUNTS = {"built-in": 0, "ours": 0}


def resident_bytes():
    """What this process holds in memory; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * 4096
    except OSError:
        return 0


def state(collect: bool = False):
    """Hooks and attributes on the live UNet, memory, and what the webui's own hypernetworks are."""
    if collect:
        gc.collect()
    unet = live_unet()
    hooks = [
        hook
        for module in (unet.modules() if unet is not None else ())
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    ]
    ours = [
        hook
        for hook in hooks
        if (getattr(hook, "__module__", "") or "").startswith("hypernetworks.")
    ]
    return {
        "host": host(),
        "hooks": len(hooks),
        "our_hooks": len(ours),
        "attributes": [
            name for name in (vars(unet) if unet is not None else ()) if "hypernet" in name.lower()
        ],
        "wrapped": sum(
            "forward" in vars(module) for module in (unet.modules() if unet is not None else ())
        ),
        "resident_bytes": resident_bytes(),
        "tensors": sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())
        if collect
        else None,
        "unet": id(unet),
        "stored_as": sorted(
            {
                str(module.to_k.weight.dtype)
                for module in (unet.modules() if unet is not None else ())
                if hasattr(module, "to_k")
            }
        ),
        "computed_in": TAP.dtype,
        "built_in_loaded": [
            network.name for network in getattr(shared, "loaded_hypernetworks", None) or []
        ],
        "comments": COMMENTS[-20:],
        "counts": dict(COUNTS),
    }


def stand_ins():
    """How many projections of the live UNet multiply by a weight of ours now."""
    forwards = [vars(module).get("forward") for module in live_unet().modules()]
    owners = [getattr(forward, "__self__", forward) for forward in forwards]
    ours = [o for o in owners if type(o).__module__ == "hypernetworks.patching.stand_in"]
    return sum(getattr(o.projection, "path", None) == "folded" for o in ours)


def arm(body: dict = Body(default={})):  # noqa: B008
    """Record the contexts of paths that match ``only``; or fail at UNet call ``fault``; or
    interrupt at ``step``.

    With ``folded``, count at each step what is folded.
    """
    TAP.counting, TAP.folded = bool(body.get("folded")), []
    TAP.leave()
    TAP.calls, TAP.steps = [], 0
    TAP.wanted, TAP.fault_at, TAP.interrupt_at = (
        body.get("only"),
        body.get("fault"),
        body.get("interrupt"),
    )
    TAP.follow()
    return {}


def recorded(body: dict = Body(default={})):  # noqa: B008
    """Stop; write what was recorded to the file ``path``: a list of calls, path -> [before,
    after].
    """
    TAP.leave()
    TAP.wanted = TAP.fault_at = TAP.interrupt_at = None
    if body.get("path"):
        torch.save(
            [
                {path: [t.float().cpu() for t in pair] for path, pair in c.items()}
                for c in TAP.calls
            ],
            body["path"],
        )
    calls, TAP.calls = len(TAP.calls), []
    return {"calls": calls, "steps": TAP.steps, "folded": TAP.folded}


def handler(body: dict = Body(default={})):  # noqa: B008
    """Put the built-in extra network in the place of the extension's (``which: built-in``), or back
    (``ours``)."""
    from modules import extra_networks

    registry = extra_networks.extra_network_registry
    loaded = getattr(shared, "loaded_hypernetworks", None)
    if body.get("which") == "built-in":
        from modules.extra_networks_hypernet import ExtraNetworkHypernet

        KEPT.setdefault("ours", registry["hypernet"])
        extra_networks.register_extra_network(ExtraNetworkHypernet())
    elif "ours" in KEPT:
        registry["hypernet"] = KEPT.pop("ours")
    if loaded is not None:
        loaded.clear()
    return {"registered": type(registry.get("hypernet")).__module__}


def list_built_in(body: dict = Body(default={})):  # noqa: B008
    """What the built-in would list of its folder."""
    from modules.hypernetworks.hypernetwork import list_hypernetworks

    original = getattr(list_hypernetworks, "_hypernetworks_original", list_hypernetworks)
    return original(shared.cmd_opts.hypernetwork_dir)


def count_reads(body: dict = Body(default={})):  # noqa: B008
    """From now on count how often each of the two reads a file."""
    import sys

    COUNTS.update({"built-in": 0, "ours": 0})
    if "counting" in KEPT:
        return {}
    KEPT["counting"] = True
    try:
        from modules.hypernetworks.hypernetwork import Hypernetwork
    except ImportError:  # removed, as in Forge Neo
        pass
    else:
        _counted(Hypernetwork, "load", "built-in")
    _counted(sys.modules["hypernetworks.library.folders"], "read", "ours")
    return {}


def _counted(owner, name, key):
    original = getattr(owner, name)

    def call(*arguments, **named):
        COUNTS[key] += 1
        return original(*arguments, **named)

    setattr(owner, name, call)


def pages():
    """Titles of the extra networks' tabs, and who owns the tag."""
    from modules import extra_networks, ui_extra_networks

    registry = extra_networks.extra_network_registry
    return {
        "pages": [page.title for page in ui_extra_networks.extra_pages],
        "handler": type(registry.get("hypernet")).__module__,
    }


def prompts(body: dict = Body(default={})):  # noqa: B008
    """The next job's prompts become these, one per picture."""
    KEPT["prompts"] = body.get("prompts")
    return {}


def reload_ui(body: dict = Body(default={})):  # noqa: B008
    """What the button "Reload UI" does."""
    shared.state.request_restart()
    return {}


class Witness(scripts.Script):
    """Sees what a job told its user beneath the picture; gives a job other prompts, as other
    extensions do."""

    def title(self):
        return "Hypernetworks' probe"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return []

    def process(self, p):
        prompts = KEPT.pop("prompts", None)
        if prompts:
            p.all_prompts = list(prompts)
            if getattr(p, "all_hr_prompts", None):
                p.all_hr_prompts = list(prompts)

    def postprocess(self, p, processed):
        COMMENTS.append(str(getattr(processed, "comments", "")))
        del COMMENTS[:-20]


def add_routes(_demo, app: FastAPI):
    """Called when the server exists."""
    for method, routes in (
        ("GET", (state, pages)),
        ("POST", (arm, recorded, handler, list_built_in, count_reads, prompts, reload_ui)),
    ):
        for function in routes:
            app.add_api_route(f"/probe/{function.__name__}", function, methods=[method])


on_app_started(add_routes)
on_cfg_denoiser(TAP.step)
