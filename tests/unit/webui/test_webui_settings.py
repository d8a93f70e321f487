"""Our section of the settings, and what is read from it and from the host's."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_webui import HOSTS, FakeWebui
from unit.library.test_library import add

from hypernetworks.hosts.webui import folders, registration, settings
from hypernetworks.library.folders import CACHE_BYTES

KEYS = [settings.FOLDERS, settings.FORCE_FAMILY, settings.CACHE_MB]
every_host = pytest.mark.parametrize("fake_webui", HOSTS, indirect=True)


@every_host
def test_the_section(fake_webui: FakeWebui) -> None:
    fake_webui.module("script_callbacks").on_ui_settings(registration.ui_settings)
    for _ in range(2):
        fake_webui.module("script_callbacks").ui_settings_callback()
    labels = fake_webui.shared.opts.data_labels
    ours = {
        key: option
        for key, option in labels.items()
        if option.section == ("hypernetworks", "Hypernetworks")
    }
    assert list(ours) == KEYS
    for option in ours.values():
        assert len(option.label) > 10
        assert len(option.comment_after) > 30, "explained"
        assert option.component is None, "the host picks one by the default's type"
        assert type(option.default) in (str, bool, int)
    assert fake_webui.module("errors").reported == []


def test_a_value_in_the_settings_file_stays(fake_webui: FakeWebui) -> None:
    fake_webui.shared.opts.data[settings.CACHE_MB] = 5
    registration.ui_settings()
    assert settings.cache_bytes() == 5 << 20


@every_host
@pytest.mark.parametrize("registered", [False, True])
def test_defaults(registered: bool, fake_webui: FakeWebui) -> None:
    if registered:
        registration.ui_settings()
    assert settings.extra_folders() == ()
    assert settings.force_family() is False
    assert settings.cache_bytes() == CACHE_BYTES
    assert settings.default_multiplier() == 1.0
    assert settings.added_network() is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, 0), (512, 512 << 20), (1.5, 3 << 19), (-1, CACHE_BYTES), (None, CACHE_BYTES), ("many", CACHE_BYTES),
     (float("nan"), CACHE_BYTES), (float("inf"), CACHE_BYTES)],
)  # fmt: skip
def test_the_size_of_the_cache(value: object, expected: int, fake_webui: FakeWebui) -> None:
    fake_webui.shared.opts.data[settings.CACHE_MB] = value
    assert settings.cache_bytes() == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(True, True), (False, False), (None, False), ("no", False)]
)
def test_forcing_a_family(value: object, expected: bool, fake_webui: FakeWebui) -> None:
    fake_webui.shared.opts.data[settings.FORCE_FAMILY] = value
    assert settings.force_family() is expected


def test_the_hosts_default_multiplier(fake_webui: FakeWebui) -> None:
    fake_webui.shared.opts.data["extra_networks_default_multiplier"] = 0.7
    assert settings.default_multiplier() == 0.7
    fake_webui.shared.opts.data["extra_networks_default_multiplier"] = None
    assert settings.default_multiplier() == 1.0


@pytest.mark.parametrize("value", [None, 3, ["a"]])
def test_folders_that_are_nonsense(value: object, fake_webui: FakeWebui) -> None:
    fake_webui.shared.opts.data[settings.FOLDERS] = value
    assert all(isinstance(folder, Path) for folder in settings.extra_folders())


@pytest.mark.parametrize("fake_webui", ["a1111", "forge", "reforge"], indirect=True)
def test_the_hosts_own_setting_add_hypernetwork_to_prompt(fake_webui: FakeWebui) -> None:
    add(fake_webui.folder, "ink.safetensors")
    folders.register()
    assert settings.added_network() is None
    assert "ink" in fake_webui.shared.hypernetworks, "what its menu offers"
    fake_webui.shared.opts.set("sd_hypernetwork", "ink")
    assert settings.added_network() == "ink"
    fake_webui.shared.opts.set("sd_hypernetwork", "")
    assert settings.added_network() is None


@pytest.mark.parametrize("fake_webui", ["classic", "sdnext"], indirect=True)
def test_it_is_not_added_where_it_is_missing(fake_webui: FakeWebui) -> None:
    registration.ui_settings()
    assert "sd_hypernetwork" not in fake_webui.shared.opts.data_labels
    assert settings.added_network() is None
    fake_webui.shared.opts.data["sd_hypernetwork"] = "ink"  # from another webui's config.json
    assert settings.added_network() is None, "no setting could switch it off"


def test_who_may_only_use_the_api_can_not_change_the_folders(fake_webui: FakeWebui) -> None:
    registration.ui_settings()
    assert not fake_webui.shared.opts.set(settings.FOLDERS, "/", is_api=True)
    assert fake_webui.shared.opts.set(settings.CACHE_MB, 5, is_api=True)
    assert settings.extra_folders() == ()


@every_host
def test_folders_are_locked_together_with_the_hosts(fake_webui: FakeWebui) -> None:
    fake_webui.shared.cmd_opts.hide_ui_dir_config = True
    registration.ui_settings()
    assert settings.FOLDERS in fake_webui.shared.restricted_opts
    assert fake_webui.shared.opts.data_labels[settings.FOLDERS].component_args["visible"] is False
    assert not fake_webui.shared.opts.set(settings.FOLDERS, "/")
