"""Is DeNS right and fast on the GPU that is here? ``python -m benchmarks gpu --help``."""
