"""One adapter per host: finds the live UNet, and follows each generation from start to end, step by
step.
"""
