"""Scripts that were loaded."""

from collections import namedtuple

AlwaysVisible = object()
ScriptClassData = namedtuple("ScriptClassData", ["script_class", "path", "basedir", "module"])
scripts_data: list[ScriptClassData] = []


class Script:
    """A script."""

    def title(self):
        """Its name."""
        raise NotImplementedError

    def show(self, is_img2img):
        """Where it stands."""
        return True

    def ui(self, is_img2img):
        """Its components."""
        return []
