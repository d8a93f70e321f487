"""What the public models look like: their configurations, tokenizers and original tensor names.

One folder per family (``sd1``, ``sd2``, ``sdxl``), laid out like a diffusers folder without
weights, so that a single file can be loaded without asking any server. ``clip_merges.txt.gz`` comes
from OpenAI's CLIP: see ``NOTICE``.
"""
