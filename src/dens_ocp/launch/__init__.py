"""Processes of a run: ranks, SLURM, signals, agreement, data workers, logger login."""
