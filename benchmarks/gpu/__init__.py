"""What hypernetworks cost on a GPU: ``python -m benchmarks.gpu --out FOLDER``, one process, at most
six minutes.

``--rehearse`` runs the same code on small UNets on the CPU in less than a minute, so that nothing
is tried for the first time when a GPU is at hand. Every part is guarded: what fails costs that part
alone.
"""
