"""What the webui computes on."""

import torch

cpu = device = torch.device("cpu")
