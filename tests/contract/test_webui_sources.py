"""What the extension and the fake webui assume of the real hosts, checked against their sources
without running them.

``HYPERNETWORKS_WEBUI_SOURCES`` names a folder with ``a1111/``, ``forge/``, ``reforge/``,
``classic/``, ``neo/``, ``sdnext/``, or some of them; without it, everything here is skipped.
"""

from __future__ import annotations

import ast
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from fake_webui import HERE, HOSTS

SOURCES = os.environ.get("HYPERNETWORKS_WEBUI_SOURCES")
NEO = "neo"
"""Forge Neo; the fake webui has none like it, since what we touch there is Classic's or Forge's."""
BUILT_IN = ("a1111", "forge", "reforge")
"""Hosts that still have code for hypernetworks."""

pytestmark = pytest.mark.skipif(not SOURCES, reason="HYPERNETWORKS_WEBUI_SOURCES is not set")


@dataclass(frozen=True)
class Source:
    """One file of a host, read with ``ast``."""

    path: Path

    @property
    def text(self) -> str:
        """As it stands there."""
        return self.path.read_text(encoding="utf8")

    @property
    def tree(self) -> ast.Module:
        """Parsed once."""
        return parsed(self.path)

    def find(self, dotted: str) -> Any:
        """A function or class, such as ``"Options.set"``; ``None`` where it is missing."""
        body: Any = self.tree
        for name in dotted.split("."):
            found = [node for node in ast.walk(body) if getattr(node, "name", None) == name]
            found = [
                node
                for node in found
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            ]
            if not found:
                return None
            body = found[0]
        return body

    def parameters(self, dotted: str) -> list[str]:
        """Names of a function's parameters, ``*`` and ``**`` at the end for those that take any."""
        node = self.find(dotted)
        assert node is not None, f"{self.path} has no {dotted}"
        arguments = node.args
        names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        return (
            names + ["*"] * (arguments.vararg is not None) + ["**"] * (arguments.kwarg is not None)
        )

    def assigned(self) -> set[str]:
        """All names that the file assigns or imports at its top level, in conditions, too."""
        names = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                names |= {alias.asname or alias.name for alias in node.names}
        return names


@lru_cache
def parsed(path: Path) -> ast.Module:
    """The tree of a file."""
    return ast.parse(path.read_text(encoding="utf8"))


@pytest.fixture(params=(*HOSTS, NEO))
def host(request: pytest.FixtureRequest) -> str:
    """Each host whose sources are there."""
    if not (Path(str(SOURCES)) / request.param / "modules").is_dir():
        pytest.skip(f"no sources of {request.param}")
    return str(request.param)


def source(host: str, path: str) -> Source:
    """A file of a host that must exist."""
    found = Path(str(SOURCES)) / host / path
    assert found.is_file(), f"{host} has no {path}"
    return Source(found)


def has(host: str, path: str) -> bool:
    """Whether a host has a file."""
    return (Path(str(SOURCES)) / host / path).is_file()


# The fake says what A1111 does


FAKES = sorted(
    path.relative_to(HERE).as_posix()
    for path in (HERE / "modules").rglob("*.py")
    if path.name != "__init__.py" and not path.name.startswith("fake_")
)
ONLY_FAKE = {
    "script_callbacks.py": {"call"},
    "processing.py": {"StableDiffusionProcessing"},
    "ui_extra_networks_user_metadata.py": {"Component"},
}
"""Helpers of the fake without a counterpart, and what it simplifies."""


@pytest.mark.parametrize("path", FAKES)
def test_the_fake_has_the_names_and_parameters_of_a1111(path: str) -> None:
    if not has("a1111", "modules/shared.py"):
        pytest.skip("no sources of a1111")
    fake, real = Source(HERE / path), source("a1111", path)
    for dotted in public(fake.tree):
        if dotted.split(".")[0] in ONLY_FAKE.get(fake.path.name, set()):
            continue
        node = real.find(dotted)
        assert node is not None, f"{path}: the real one has no {dotted}"
        if isinstance(node, ast.FunctionDef):
            assert real.parameters(dotted)[: len(fake.parameters(dotted))] == fake.parameters(
                dotted
            ), dotted


def public(tree: ast.Module) -> list[str]:
    """Functions, classes and methods of a file that are not private."""
    found = []
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            found.append(node.name)
            methods = node.body if isinstance(node, ast.ClassDef) else []
            found += [
                f"{node.name}.{m.name}"
                for m in methods
                if isinstance(m, ast.FunctionDef) and m.name[0] != "_"
            ]
    return found


def test_which_hosts_have_hypernetworks(host: str) -> None:
    built_in = host in BUILT_IN
    assert has(host, "modules/hypernetworks/hypernetwork.py") is built_in
    has_a_rest = host not in ("classic", NEO)
    assert ("hypernetworks" in source(host, "modules/shared.py").assigned()) is has_a_rest
    assert ("--hypernetwork-dir" in source(host, "modules/cmd_args.py").text) is has_a_rest
    options = source(
        host, "modules/ui_definitions.py" if host == "sdnext" else "modules/shared_options.py"
    ).text
    assert ('"sd_hypernetwork"' in options) is built_in
    assert '"extra_networks_default_multiplier"' in options


# Comments in prompts: host.without_comments, and commentsOf in javascript/hypernetworks.js


def test_how_comments_are_taken_out(host: str) -> None:
    path = "modules/processing_scripts/comments.py"
    if host == "sdnext":
        assert not has(host, path)
        return

    module = source(host, path)
    assert [argument.arg for argument in module.find("strip_comments").args.args] == ["text"]
    has_switch = host != "reforge"
    assert ('"enable_prompt_comments":' in module.text) is has_switch
    assert ('"enable_prompt_comments_def":' in module.text) is not has_switch
    assert ('"save_prompt_comments":' in module.text) is (host == NEO)
    assert ("//" in module.text) is (host in (NEO, "reforge"))


# folders.py


def test_paths(host: str) -> None:
    names = source(host, "modules/paths.py").assigned()
    assert {"models_path", "data_path"} <= names
    if host == "sdnext":  # relative ones by default, as the fake's are
        text = source(host, "modules/paths.py").text
        assert "data_path = cli.data_dir" in text
        assert "config.get('models_dir') or 'models'" in text
        (option,) = re.findall('"--data-dir", .*', source(host, "modules/cmd_args.py").text)
        assert """("SD_DATADIR", '')""" in option


def test_the_command_line(host: str) -> None:
    text = source(host, "modules/cmd_args.py").text
    assert "--no-hashing" in text
    assert "hide" in text
    assert "hide_ui_dir_config" in text.replace("-", "_")
    assert ("--auth-file" in text) is (host == "sdnext")
    assert ("--gradio-auth" in text) is (host != "sdnext")
    assert "--api-auth" in text


FORGES_OPTIONS = {
    "forge": ("backend/args.py", "--always-cpu"),
    NEO: ("backend/args.py", "--cpu"),
    "reforge": ("ldm_patched/modules/args_parser.py", "--always-cpu"),
    "classic": ("ldm_patched/modules/args_parser.py", "--always-cpu"),
}


def test_the_device(host: str) -> None:
    assert "device" in source(host, "modules/devices.py").assigned()
    if host not in FORGES_OPTIONS:
        assert "--use-cpu" in source(host, "modules/cmd_args.py").text
        return
    path, option = FORGES_OPTIONS[host]
    assert "args" in source(host, path).assigned()
    assert f'"{option}"' in source(host, path).text
    # A card's number reaches the trainer by this variable.
    assert "CUDA_VISIBLE_DEVICES" in source(host, "modules_forge/initialization.py").text


def test_the_list_of_hypernetworks_has_one_origin(host: str) -> None:
    """All callers go through ``reload_hypernetworks``, and that looks the function up in its
    module."""
    if host not in BUILT_IN:
        assert "reload_hypernetworks" not in source(host, "modules/shared_items.py").text
        return
    module = source(host, "modules/hypernetworks/hypernetwork.py")
    assert module.parameters("list_hypernetworks") == ["path"]
    assert module.parameters("Hypernetwork.load") == ["self", "filename"]
    callers = [
        path.name
        for path in (Path(str(SOURCES)) / host / "modules").rglob("*.py")
        if "list_hypernetworks("
        in path.read_text(encoding="utf8").replace("def list_hypernetworks(", "")
    ]
    assert callers == ["shared_items.py"]
    called = ast.unparse(source(host, "modules/shared_items.py").find("reload_hypernetworks"))
    assert (
        "shared.hypernetworks = hypernetwork.list_hypernetworks(cmd_opts.hypernetwork_dir)"
        in called
    )
    assert "from modules.hypernetworks import hypernetwork" in called


def test_the_stock_endpoint_shows_the_list(host: str) -> None:
    text = source(host, "modules/api/api.py").text
    assert ("/sdapi/v1/hypernetworks" in text) is (host in BUILT_IN)
    if host in BUILT_IN:
        assert "shared.hypernetworks[name]" in ast.unparse(
            source(host, "modules/api/api.py").find("get_hypernetworks")
        )


def test_the_built_in_training_loads_what_is_chosen(host: str) -> None:
    if host in ("a1111", "reforge"):  # Forge's is commented out
        trainer = ast.unparse(
            source(host, "modules/hypernetworks/hypernetwork.py").find("train_hypernetwork")
        )
        assert "path = shared.hypernetworks.get(hypernetwork_name, None)" in trainer
        assert "hypernetwork.load(path)" in trainer


def test_hashes(host: str) -> None:
    hashes = source(host, "modules/hashes.py")
    assert hashes.parameters("sha256")[:2] == ["filename", "title"]
    assert {"cache"} <= hashes.assigned() | {
        node.name for node in hashes.tree.body if hasattr(node, "name")
    }
    text = hashes.text.replace("'", '"')
    assert (
        '"mtime": os.path.getmtime(filename)' in text
        or "os.path.getmtime(filename), sha256_value" in text
    )
    assert '"sha256"' in text
    origin = hashes if host == "sdnext" else source(host, "modules/cache.py")
    assert len(origin.parameters("cache")) == 1
    if host == "sdnext":
        assert ast.unparse(hashes.find("HashStore").bases[0]).startswith("dict")
    else:
        assert "diskcache.Cache(" in origin.text


# settings.py


def test_options(host: str) -> None:
    options = source(host, "modules/options.py")
    parameters = options.parameters("OptionInfo.__init__")
    assert parameters[1:4] == ["default", "label", "component"]
    assert {"component_args", "onchange", "section", "category_id"} <= set(parameters)
    assert "restrict_api" in parameters or "**" in parameters
    assert options.parameters("OptionInfo.info") == ["self", "info"]
    keeper = source(host, "modules/options_handler.py") if host == "sdnext" else options
    assert keeper.parameters("Options.add_option") == ["self", "key", "info"]
    assert "onchange()" in keeper.text or "func = self.data_labels[key].onchange" in keeper.text
    assert "restricted_opts" in source(host, "modules/shared.py").assigned()


def test_components_follow_from_the_type_of_a_default(host: str) -> None:
    node = source(host, "modules/ui_settings.py").find("create_setting_component")
    text = ast.unparse(node)
    for kind, component in (("str", "gr.Textbox"), ("int", "gr.Number"), ("bool", "gr.Checkbox")):
        assert re.search(rf"t == {kind}:\s+comp = {re.escape(component)}", text), kind
    assert "**args" in text, "so that lines= and visible= reach the text box"


def test_a_category_for_our_section(host: str) -> None:
    if host != "sdnext":  # which has none
        assert re.search(
            r"register_category\(['\"]sd['\"]", source(host, "modules/shared_options.py").text
        )


# registration, infotext.py


CALLBACKS = {
    "on_ui_settings": (),
    "on_before_ui": (),
    "on_app_started": ("demo", "app"),
    "on_infotext_pasted": ("infotext", "params"),
    "on_script_unloaded": (),
}


def test_callbacks(host: str) -> None:
    callbacks = source(host, "modules/script_callbacks.py")
    for name, arguments in CALLBACKS.items():
        assert callbacks.parameters(name)[0] == "callback"
        assert ("name" in callbacks.parameters(name)) is (host in (*BUILT_IN, NEO))
        call = callbacks.parameters(f"{name.removeprefix('on_')}_callback")
        assert tuple(call) == arguments, name


def test_pasting(host: str) -> None:
    """Handlers run after the infotext was read and before the fields are set."""
    path = (
        "modules/generation_parameters_copypaste.py"
        if host == "sdnext"
        else "modules/infotext_utils.py"
    )
    text = ast.unparse(source(host, path).find("paste_func"))
    read = text.index(
        "parse(prompt)" if host == "sdnext" else "parse_generation_parameters(prompt)"
    )
    called = text.index("script_callbacks.infotext_pasted_callback(prompt, params)")
    use = "_parse_info(output, key, params)" if host == NEO else "params.get(key"
    assert read < called < text.index(use)
    assert ("<hypernet:" in source(host, path).text) is (host in BUILT_IN), (
        "who makes tags of old infotexts"
    )


def test_names_of_the_prompts_in_an_infotext(host: str) -> None:
    path = "modules/infotext.py" if host == "sdnext" else "modules/infotext_utils.py"
    text = source(host, path).text.replace('"', "'")
    assert re.search(r"(res|params)\['Prompt'\]", text)
    if host != "sdnext":
        assert "'Hires prompt'" in text
    else:
        assert '"Refiner prompt"' in source(host, "modules/processing_info.py").text


# xyz.py


XYZ = {
    "classic": (
        "extensions-builtin/xyz/scripts/xyz_grid.py",
        "extensions-builtin/xyz/lib_xyz/classes.py",
    ),
    "sdnext": ("scripts/xyz_grid.py", "scripts/xyz/xyz_grid_classes.py"),
}


def test_the_xyz_script(host: str) -> None:
    script, classes = (source(host, path) for path in XYZ.get(host, ("scripts/xyz_grid.py",) * 2))
    assert {"axis_options"} <= script.assigned()
    assert "AxisOption" in script.assigned() or script.find("AxisOption") is not None
    assert "type(x) == AxisOption" in script.text, "axes for both tabs are of the class itself"
    parameters = classes.parameters("AxisOption.__init__")
    assert parameters[3] == "apply"
    assert {"label", "confirm", "cost", "choices"} <= set(parameters)
    assert parameters[1:3] in (["label", "type"], ["label", "tipe"])
    run = ast.unparse(script.find("cell"))
    assert "pc = copy(p)" in run
    assert run.index("x_opt.apply(pc, x, xs)") < run.index("y_opt.apply(pc, y, ys)")
    assert "opt.confirm(p, valslist)" in script.text
    assert "x_opt.cost > y_opt.cost" in script.text


def test_loaded_scripts(host: str) -> None:
    scripts = source(
        host, "modules/scripts_manager.py" if host == "sdnext" else "modules/scripts.py"
    )
    assert "scripts_data" in scripts.assigned()
    assert (
        "ScriptClassData(script_class, scriptfile.path, scriptfile.basedir, module)" in scripts.text
    )
    if host == "sdnext":
        assert "from modules.scripts_manager import *" in source(host, "modules/scripts.py").text
        assert "scripts_data.clear()" in scripts.text, (
            "so that the name in modules.scripts stays the same list"
        )


def test_prompts_of_a_job(host: str) -> None:
    if host == "sdnext":
        assert "refiner_prompt" in source(host, "modules/processing_class.py").text
    else:
        assert "hr_prompt" in source(host, "modules/processing.py").text


# api.py


def test_logins(host: str) -> None:
    text = source(host, "modules/api/api.py").text
    option = "auth" if host == "sdnext" else "api_auth"
    assert f"shared.cmd_opts.{option}.split(',')" in text.replace('"', "'")
    assert "compare_digest(credentials.password, self.credentials[credentials.username])" in text
    assert re.search(r"auth=", source(host, "webui.py").text), "the page's login is gradio's"


def test_the_gradio_that_is_installed_for_a_host(host: str) -> None:
    """Where a host's own environment stands beside its sources."""
    found = list(Path(str(SOURCES)).glob(f"venv-{host}/lib/python*/site-packages/gradio/routes.py"))
    if not found:
        pytest.skip(f"no environment of {host}")
    text = found[0].read_text(encoding="utf8")
    assert "app.tokens[token] = username" in text
    assert "self.auth = None" in text
    cookies = re.findall(r"cookies\.get\(\s*f?\"([a-z-]+)", text)
    assert cookies
    assert all(name.startswith("access-token") for name in cookies)
