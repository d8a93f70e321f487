"""Prompts for fitting a LoRA where the user names none."""

from __future__ import annotations

SUBJECTS = (
    "a woman with long hair",
    "an old man with a beard",
    "a girl in a red dress",
    "a knight in armor",
    "a couple dancing",
    "a child with a balloon",
    "a robot",
    "a cat on a chair",
    "a running dog",
    "a flying bird",
    "a horse in a meadow",
    "a dragon",
    "a wooden house",
    "a castle on a hill",
    "a city street at night",
    "a mountain lake",
    "a forest path",
    "a sailing ship at sea",
    "a sports car",
    "a steam train",
    "a bowl of fruit",
    "a vase of flowers",
    "a cup of coffee on a table",
    "a spaceship above a planet",
)
KINDS = (
    "",
    "portrait, looking at viewer",
    "close-up, detailed",
    "wide shot, dramatic lighting",
    "photo, 35mm, natural light",
    "oil painting",
    "watercolor, soft colors",
    "anime, 1girl, masterpiece, best quality",
    "concept art, trending on artstation",
    "black and white",
)


def general_prompts() -> list[str]:
    """Every subject as every kind of image: what models of Stable Diffusion are used for."""
    return [f"{subject}, {kind}".removesuffix(", ") for kind in KINDS for subject in SUBJECTS]
