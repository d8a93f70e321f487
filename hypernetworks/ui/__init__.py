"""Widgets that the webuis and the studio share.

The only room, next to the studio, that imports gradio.
"""
