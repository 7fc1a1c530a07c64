"""Corruption of structures (Algorithm 1, lines 7 to 22), as pure functions of tensors."""
