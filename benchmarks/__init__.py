"""What the project costs, measured: ``python -m benchmarks``; on a GPU ``python -m
benchmarks.gpu``."""
