"""Widgets that the webuis and the studio share.

Besides the studio, the only room that imports gradio.
"""
