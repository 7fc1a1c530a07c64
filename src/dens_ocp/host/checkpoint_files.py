"""Reading checkpoint files: whole files only."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from dens_ocp.errors import DensError


def read(path: str | os.PathLike[str], map_location: torch.device) -> dict[str, Any]:
    """Read a fairchem, authors' or own checkpoint.

    Raises:
        DensError: no such file, a damaged file, or one that is not a checkpoint.
    """
    if not Path(path).is_file():
        raise DensError(f"checkpoint: {path} does not exist; check the path given to --checkpoint")
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=False)
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError, KeyError) as error:
        raise DensError(
            f"checkpoint: {path} is damaged or not a checkpoint ({type(error).__name__}: {error}); "
            "use another one"
        ) from None
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise DensError(
            f"checkpoint: {path} is not a fairchem checkpoint: it has no state_dict; use a "
            "checkpoint.pt or best_checkpoint.pt written by training"
        )
    checkpoint.setdefault("normalizers", {})
    checkpoint.setdefault("amp", None)
    return checkpoint
