"""Where configs and checkpoints name the trainer: ``dens_ocp.trainer.DeNSTrainer``."""

from dens_ocp.training.trainer import DeNSTrainer

__all__ = ["DeNSTrainer"]
