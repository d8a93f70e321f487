"""Training from the webui's page: our own trainer in a process of its own, on the selected
checkpoint's file.
"""
