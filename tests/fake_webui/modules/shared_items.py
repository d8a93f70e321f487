"""Functions that settings and buttons call."""

from modules import HAS_HYPERNETWORKS

if HAS_HYPERNETWORKS:

    def reload_hypernetworks():
        """List the files again."""
        from modules import shared
        from modules.hypernetworks import hypernetwork

        shared.hypernetworks = hypernetwork.list_hypernetworks(shared.cmd_opts.hypernetwork_dir)
