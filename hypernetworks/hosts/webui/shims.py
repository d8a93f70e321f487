"""What other extensions ask of a webui about hypernetworks, for webuis that have removed it.

Only what is missing is added: ``cmd_opts.hypernetwork_dir``, ``shared.reload_hypernetworks``,
``shared.loaded_hypernetworks``, ``modules.hypernetworks`` and the API's route. Tag completion,
download tools and the Civitai extensions ask for these, and fail or leave hypernetworks out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from starlette.requests import Request

from ...errors import NameLookupError
from . import folders

ROUTE = "/sdapi/v1/hypernetworks"
"""AUTOMATIC1111's; lists names and paths."""
PACKAGE = "modules.hypernetworks"
_UNDO: list[Callable[[], object]] = []


def register() -> None:
    """Add what is missing; any number of times. To be called before other extensions ask."""
    from modules import shared

    remove()
    _give(shared.cmd_opts, "hypernetwork_dir", lambda: str(folders.folders()[0]))
    _give(shared, "reload_hypernetworks", lambda: folders.refresh)
    _give(shared, "hypernetworks", dict)
    _give(shared, "loaded_hypernetworks", list)
    _give_package()


def remove() -> None:
    """Take everything out that was added; any number of times."""
    while _UNDO:
        _UNDO.pop()()


def needs_route(app: Any) -> bool:
    """Whether the webui has an API but no route of this kind."""
    from modules import shared

    has_api = getattr(shared.cmd_opts, "api", True) or getattr(shared.cmd_opts, "nowebui", False)
    return bool(has_api) and all(getattr(route, "path", None) != ROUTE for route in app.routes)


def list_as_the_webui_does(_request: Request) -> list[dict[str, str]]:
    """All networks with their paths, as AUTOMATIC1111 lists them."""
    return [{"name": name, "path": path} for name, path in folders.host_list().items()]


def _give(owner: Any, name: str, value: Callable[[], Any]) -> None:
    """Set an attribute that is missing, or ``None`` as an option that nobody has given."""
    if getattr(owner, name, None) is not None:
        return

    was_there = hasattr(owner, name)
    given = value()
    setattr(owner, name, given)

    def undo() -> None:
        if getattr(owner, name, None) is not given:
            return  # someone else has set it since
        if was_there:
            setattr(owner, name, None)
        else:
            delattr(owner, name)

    _UNDO.append(undo)


def _give_package() -> None:
    try:
        import_module(f"{PACKAGE}.hypernetwork")
    except ImportError:
        before = {name: sys.modules.get(name, ...) for name in (PACKAGE, f"{PACKAGE}.hypernetwork")}
    else:
        return

    package, module = ModuleType(PACKAGE), ModuleType(f"{PACKAGE}.hypernetwork")
    for function in (
        list_hypernetworks,
        load_hypernetwork,
        load_hypernetworks,
        find_closest_hypernetwork_name,
    ):
        setattr(module, function.__name__, function)
    vars(module)["hypernetworks_shim"] = vars(package)["hypernetworks_shim"] = True
    vars(package).update(hypernetwork=module, __path__=[])
    sys.modules.update({PACKAGE: package, module.__name__: module})

    def undo() -> None:
        for name, old in before.items():
            sys.modules.pop(name, None)
            if old is not ...:
                sys.modules[name] = old  # type: ignore[assignment]

    _UNDO.append(undo)


# The functions of modules.hypernetworks.hypernetwork, by AUTOMATIC1111's names.


def list_hypernetworks(path: str) -> dict[str, str]:
    """Paths by name, of the files in a folder and below it."""
    inside = Path(path).absolute()
    return {
        name: file
        for name, file in folders.host_list().items()
        if inside in Path(file).absolute().parents
    }


def load_hypernetwork(name: str) -> Any:
    """The network of a name, or ``None``; ours, which has the ``name`` and layers of the
    webui's.
    """
    try:
        return folders.library().load(folders.library().find(name))
    except NameLookupError:
        return None


def load_hypernetworks(names: Sequence[str], multipliers: Sequence[float] | None = None) -> None:
    """Does nothing: networks act where a tag in the prompt says so, and nowhere else."""


def find_closest_hypernetwork_name(search: str) -> str | None:
    """The name of the file that is meant, or ``None``."""
    if not search:
        return None
    try:
        return folders.library().name_of(folders.library().find(search))
    except NameLookupError:
        return None
