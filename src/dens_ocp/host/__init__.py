"""Work-arounds for fairchem-core 1.10.0, the host: one module for each of its traps."""
