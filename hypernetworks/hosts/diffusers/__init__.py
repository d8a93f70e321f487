"""diffusers as a host: from a prompt with tags to images, on the miniature or on a user's
checkpoint.

>>> from hypernetworks.hosts.diffusers import Generation, Painter               # doctest: +SKIP
>>> Painter(None, library).generate(Generation("an apple <hypernet:ink:0.8>")).pictures
"""

from .generation import Generation, Hires, Picture, Result, save_png
from .pipeline import MINIATURE, MINIATURE_NETWORKS, Painter

__all__ = [
    "MINIATURE",
    "MINIATURE_NETWORKS",
    "Generation",
    "Hires",
    "Painter",
    "Picture",
    "Result",
    "save_png",
]
