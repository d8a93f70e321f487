"""Starts a real webui with the project linked into its extensions, and leaves its folder as it
was.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from webui_client import Webui

ROOT = Path(__file__).parents[2]
PROBE = Path(__file__).parent / "probe"
START_SECONDS = 480
DYNAMIC_PROMPTS: dict[str, Any] = {
    "dp_ignore_whitespace": False,
    "dp_write_raw_template": False,
    "dp_write_prompts_to_file": False,
    "dp_parser_variant_start": "{",
    "dp_parser_variant_end": "}",
    "dp_parser_wildcard_wrap": "__",
    "dp_limit_jinja_prompts": False,
    "dp_auto_purge_cache": False,
    "dp_wildcard_manager_no_dedupe": False,
    "dp_wildcard_manager_no_sort": False,
    "dp_wildcard_manager_shuffle": False,
    "dp_magicprompt_default_model": "",
    "dp_magicprompt_batch_size": 1,
}
"""Defaults of sd-dynamic-prompts, which fails in AUTOMATIC1111 1.10.1 until they stand in the
file."""


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def linked(folder: Path, extensions: Path, name: str) -> Iterator[None]:
    """A folder as an extension of the webui, by a link or, where there are none, a copy; there
    already is fine."""
    if any(path.resolve() == folder.resolve() for path in extensions.iterdir() if path.is_dir()):
        yield
        return
    place = extensions / name
    try:
        place.symlink_to(folder, target_is_directory=True)
    except OSError:
        shutil.copytree(
            folder, place, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache")
        )
    try:
        yield
    finally:
        if place.is_symlink():
            place.unlink()
        else:
            shutil.rmtree(place)


@contextlib.contextmanager
def installed(folder: Path | None, extensions: Path) -> Iterator[list[str]]:
    """Copies of the extensions in a folder under their own names; some write into their folders.

    Raises:
        FileExistsError: the webui has an extension of that name; the run would test that one
            instead.
    """
    sources = sorted(path for path in folder.iterdir() if path.is_dir()) if folder else []
    copies: list[Path] = []
    try:
        for source in sources:
            copy = extensions / source.name
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns(".git", "__pycache__"))
            copies.append(copy)
        yield [copy.name for copy in copies]
    finally:
        for copy in copies:
            shutil.rmtree(copy, ignore_errors=True)


def settings_version(webui: Path) -> dict[str, str]:
    """What Forge Neo wants to find in a settings file; without it, it waits for a key."""
    source = webui / "modules" / "launch_utils.py"
    text = source.read_text("utf-8") if source.is_file() else ""
    found = re.search(r'^VERSION_UID\b.*= "(.+)"', text, re.MULTILINE)
    return {"VERSION_UID": found[1]} if found else {}


def knows(webui: Path, option: str) -> bool:
    """Whether its source names the option; a webui ends from one that it doesn't know."""
    source = webui / "modules" / "cmd_args.py"
    return not source.is_file() or f'"{option}"' in source.read_text("utf-8")


def write_settings(webui: Path, folder: Path, checkpoint: str | None) -> Path:
    """A settings file that saves no picture and downloads nothing for previews."""
    settings: dict[str, Any] = {
        **settings_version(webui),
        "samples_save": False,
        "grid_save": False,
        "live_previews_enable": False,
        "show_progress_type": "Approx cheap",
        **{
            f"outdir_{kind}": str(folder / "out")
            for kind in ("txt2img_samples", "img2img_samples", "extras_samples")
        },
        **{f"outdir_{kind}_grids": str(folder / "out") for kind in ("txt2img", "img2img")},
        "outdir_save": str(folder / "out"),
        # After override_settings, the webui restores only options that stand in its file.
        "sd_hypernetwork": "None",
        "hypernetworks_force_family": False,
        "batch_cond_uncond": True,
        "refiner_switch_by_sample_steps": False,
        **DYNAMIC_PROMPTS,
        "control_net_models_path": str(folder / "ControlNet"),
    }
    if not knows(webui, "--hypernetwork-dir"):
        settings["hypernetworks_folders"] = str(folder / "hypernetworks")
    if checkpoint:
        settings["sd_model_checkpoint"] = checkpoint
    path = folder / "config.json"
    path.write_text(json.dumps(settings), "utf-8")
    return path


def command_line(
    webui: Path, python: Path, port: int, folder: Path, arguments: str, checkpoint: str | None
) -> list[str]:
    """How it is started; ``arguments`` are the user's own flags."""
    settings, page = write_settings(webui, folder, checkpoint), folder / "ui-config.json"
    ours = ["--api", "--server-name", "127.0.0.1", "--port", str(port)]
    ours += ["--lora-dir", str(folder / "Lora")]

    files = {"--ui-settings-file": settings, "--ui-config-file": page}
    if knows(webui, "--secrets"):  # SD.Next, to whose "--config" others give a model's
        files = {"--config": settings, "--ui-config": page, "--secrets": folder / "secrets.json"}
    if knows(webui, "--hypernetwork-dir"):
        files["--hypernetwork-dir"] = folder / "hypernetworks"
    for option, path in files.items():
        ours += [option, str(path)]
    if knows(webui, "--no-prompt-history"):
        ours += ["--no-prompt-history"]
    return [str(python), str(webui / "launch.py"), *ours, *shlex.split(arguments)]


@contextlib.contextmanager
def started(command: list[str], webui: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process, in a group of its own that is ended with it."""
    environment = os.environ | {
        "PYTHONUNBUFFERED": "1",
        "SD_WEBUI_RESTARTING": "1",  # opens no browser
        "SD_WEBUI_CACHE_DIR": str(log.parent / "cache"),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=webui,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)


def wait_until_up(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Until the API answers.

    Sends no request before the webui reports its start: one that arrives while AUTOMATIC1111 adds
    its API ends it ("Cannot add middleware after an application has started").

    Raises:
        RuntimeError: the process ended, or took too long; with the end of its log.
    """
    client, end = Webui(url), time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        time.sleep(1)
        if b"Startup time" not in log.read_bytes():
            continue
        with contextlib.suppress(OSError, RuntimeError):
            client.get("/sdapi/v1/options")
            client.get("/probe/pages")
            return
    state = (
        f"ended with {process.poll()}"
        if process.poll() is not None
        else f"is not up after {START_SECONDS} s"
    )
    raise RuntimeError(f"the webui {state}:\n{tail(log)}")


def tail(log: Path, lines: int = 60, start: int = 0) -> str:
    """The end of a log, from a position on."""
    with log.open("rb") as file:
        file.seek(start)
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
