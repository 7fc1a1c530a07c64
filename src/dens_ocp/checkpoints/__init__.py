"""Checkpoints of a run: their files, which are kept, what a run goes on from."""
