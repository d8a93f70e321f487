"""Callbacks of scripts, by kind."""

from modules import HOST, errors

callback_map: dict[str, list] = {}
NAMES = (
    "app_started", "before_reload", "model_loaded", "ui_tabs", "ui_settings", "before_image_saved", "image_saved",
    "cfg_denoiser", "cfg_denoised", "cfg_after_cfg", "before_component", "after_component", "infotext_pasted",
    "script_unloaded", "before_ui",
)  # fmt: skip


def _adder(kind):
    def add(callback):
        callback_map.setdefault(kind, []).append(callback)

    def add_named(callback, *, name=None):
        add(callback)

    return add if HOST in ("classic", "sdnext") else add_named


globals().update({f"on_{name}": _adder(name) for name in NAMES})


def call(kind, *arguments):
    """Run all of one kind, as the host does: one that raises is reported."""
    for callback in callback_map.get(kind, []):
        try:
            callback(*arguments)
        except Exception as error:
            errors.display(error, kind)


def infotext_pasted_callback(infotext, params):
    """An infotext has been read."""
    call("infotext_pasted", infotext, params)


def app_started_callback(demo, app):
    """The web server exists."""
    call("app_started", demo, app)


def before_ui_callback():
    """The page is about to be built."""
    call("before_ui")


def ui_settings_callback():
    """The settings page is about to be built."""
    call("ui_settings")


def script_unloaded_callback():
    """Scripts are about to be loaded anew."""
    call("script_unloaded")
