"""Hypernetworks against LoRA and other adapters; ``python -m benchmarks.adapters``.

What is compared on (:mod:`.task`: the miniature's renderings, or a checkpoint and a folder of
images), what is compared (:mod:`.methods`), how one row is measured (:mod:`.measuring`), and what
is written about all of them (:mod:`.report`).
"""
