"""What a training step with DeNS costs, beside stock fairchem: ``python -m benchmarks --help``."""

import dens_ocp  # noqa: F401 (before fairchem: it serves what fairchem does not find)
