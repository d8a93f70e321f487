"""The AUTOMATIC1111 family as hosts: A1111, Forge, reForge, Forge Classic and SD.Next.

Everything here imports the webui's ``modules`` package, inside functions, so that it can be
imported without one.
"""
