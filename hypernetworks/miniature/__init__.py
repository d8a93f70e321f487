"""The small text-to-image model that is included, and the tools that rebuild and measure it.

``python -m hypernetworks.miniature --help`` lists the tools. MODEL_CARD.md says where the training
images come from, under which licences, and what the model can do.
"""
