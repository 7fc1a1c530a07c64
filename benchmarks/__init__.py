"""What a training step with DeNS costs, beside stock fairchem: ``python -m benchmarks --help``."""
