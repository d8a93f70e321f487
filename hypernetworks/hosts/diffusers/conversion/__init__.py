"""Networks that aren't linear as LoRAs: the nearest one, and how near it is.

A network that isn't linear does to each context what no change of weights does to all. Near the
contexts that a model really has, a change of weights can come close. There are two ways to it:

* least squares: images are generated with the networks on, every attention module notes the
  contexts that it gets, and the affine map that fits best there takes the networks' place;
* distilling: on from there, a LoRA in all layers of the attention blocks is trained until the UNet
  predicts with it what it predicts with the networks.
"""

from .distilling import Training
from .fitting import METHODS, Fitted, fit_lora
from .prompts import general_prompts
from .sampling import Sampling, save_sheet

__all__ = [
    "METHODS",
    "Fitted",
    "Sampling",
    "Training",
    "fit_lora",
    "general_prompts",
    "save_sheet",
]
