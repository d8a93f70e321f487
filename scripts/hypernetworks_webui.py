"""What the webui loads: hands the package's callbacks and its panel over."""

from modules import scripts

from hypernetworks.hosts.webui import registration
from hypernetworks.ui.panel import panel

registration.register()


class HypernetworksScript(scripts.Script):
    """Puts the panel into txt2img and img2img."""

    def title(self):
        return "Hypernetworks"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        tab = "img2img" if is_img2img else "txt2img"
        panel(tab, opened=False, check="./hypernetworks/v1/check")
        return []

    def before_process(self, p, *args):
        registration.before_image()
