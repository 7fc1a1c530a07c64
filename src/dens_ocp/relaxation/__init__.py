"""Relaxations: batches dealt to ranks, trajectories, metrics."""
