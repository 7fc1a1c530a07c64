"""The trainer: fairchem's, with DeNS, and what keeps a run whole."""
