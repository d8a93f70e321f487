"""What all of the webui shares."""

from argparse import Namespace

from modules import HAS_HYPERNETWORKS, HOST, options, paths_internal, shared_items

OptionInfo = options.OptionInfo
cmd_opts = Namespace(
    no_hashing=False,
    hide_ui_dir_config=False,
    api_auth=None,
    gradio_auth=None,
)
if HAS_HYPERNETWORKS:
    cmd_opts.hypernetwork_dir = f"{paths_internal.models_path}/hypernetworks"
    loaded_hypernetworks: list = []
    reload_hypernetworks = shared_items.reload_hypernetworks
if HOST == "sdnext":
    cmd_opts.hypernetwork_dir = cmd_opts.auth = cmd_opts.auth_file = None
if HOST != "classic":
    hypernetworks: dict[str, str] = {}

restricted_opts = {"outdir_samples"}
_stock = {
    "extra_networks_default_multiplier": OptionInfo(1.0, "Default multiplier for extra networks")
}
if HAS_HYPERNETWORKS:
    _stock["sd_hypernetwork"] = OptionInfo("None", "Add hypernetwork to prompt")
if HOST == "sdnext":
    _stock["subpath"] = OptionInfo("", "Mount URL subpath")
opts = options.Options(_stock, restricted_opts)
state = Namespace(interrupted=False, skipped=False)
sd_model = None
demo = None
