"""The small text-to-image model that ships: its weights, and the tools that rebuild and measure it.

``python -m hypernetworks.miniature --help`` lists the tools. The packages that the pictures come
from, their licences and what the model can do are in MODEL_CARD.md.
"""
