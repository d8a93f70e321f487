"""A small stand-in for ComfyUI's package; tests/contract/test_comfyui.py compares it with the
source.
"""
