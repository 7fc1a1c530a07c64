"""Reading checkpoint files: whole files, and no code that they may hold.

A checkpoint is a pickle, and a pickle can run any code while it is loaded. ``torch.load`` with
``weights_only`` builds tensors and plain values only. torch 2.4 has two ways around that, closed
here: TorchScript archives (handed to ``torch.jit.load``) and tar files of torch < 0.1.10.
"""

from __future__ import annotations

import builtins
import codecs
import logging
import os
import pickle
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dens_ocp.errors import DensError
from dens_ocp.gaps.pickled_names import renamed

TRUSTED = "DENS_OCP_TRUSTED_CHECKPOINTS"
"""Environment variable: paths, separated by ``:``, of checkpoints that may run code. It is no
option of the config, because configs come with checkpoints from the same unknown origin."""

_PLAIN = [
    set,
    complex,
    *renamed(),
    np.ndarray,
    np.dtype,
    codecs.encode,  # NumPy values are pickled as text to encode
    *{type(np.dtype(code)) for code in "?bhilqBHILQefdFDSUMm"},
]
"""What may stand in a checkpoint beside what torch admits: NumPy values, sets, paths."""

_UNSUPPORTED = (
    r"GLOBAL (\S+) was not an allowed",
    r"(?:unrecognized function|unsupported class) (.+)",
    r"Can only build .* but got (.+)",
)


def read(
    path: str | os.PathLike[str], map_location: torch.device | str, mmap: bool = False
) -> dict[str, Any]:
    """Read a fairchem, authors' or own checkpoint; arguments as of :func:`read_content`.

    Raises:
        DensError: no such file, a damaged file, one that is not a checkpoint, or one that could
            run code.
    """
    checkpoint = read_content(path, map_location, mmap)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise DensError(
            f"checkpoint: {path} is not a fairchem checkpoint: it has no state_dict; use a "
            "checkpoint.pt or best_checkpoint.pt written by training"
        )
    checkpoint.setdefault("normalizers", {})
    checkpoint.setdefault("amp", None)
    return checkpoint


def refuse_folder(path: str | os.PathLike[str]) -> None:
    """Make sure that a checkpoint is no folder.

    Raises:
        DensError: it is one; with the checkpoints in it.
    """
    if Path(path).is_dir():
        there = sorted(each.name for each in Path(path).glob("*.pt"))
        holds = f"one of its files: {', '.join(there)}" if there else "a file; it holds no *.pt"
        raise DensError(f"checkpoint: {path} is a folder; give {holds} (--checkpoint)")


def read_content(
    path: str | os.PathLike[str], map_location: torch.device | str, mmap: bool = False
) -> Any:
    """What is in a file of ``torch.save``: tensors and plain values.

    Args:
        path: the file.
        map_location: where its tensors go.
        mmap: leave tensors in the file where its format allows it.

    Raises:
        DensError: as :func:`read`.
    """
    refuse_folder(path)
    if not Path(path).is_file():
        raise DensError(f"checkpoint: {path} does not exist; check the path given to --checkpoint")
    trusted = _is_trusted(path)
    try:
        zipped = _is_zip(path)
        if trusted:
            logging.warning(
                "%s: %s may run code, because %s allows it", "checkpoint", path, TRUSTED
            )
        else:
            _refuse_other_formats(path, zipped)
        with _plain_values_admitted():
            return torch.load(
                path, map_location=map_location, weights_only=not trusted, mmap=mmap and zipped
            )
    except DensError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        wanted = None if trusted else _wanted(error)
        if wanted is not None:
            raise _needs_more(path, wanted) from None
        shown = str(error).rpartition("WeightsUnpickler error: ")[2].partition("\n")[0]
        raise DensError(
            f"checkpoint: {path} is damaged or is not a checkpoint ({type(error).__name__}: "
            f"{shown}); use another one"
        ) from None


def _is_trusted(path: str | os.PathLike[str]) -> bool:
    listed = os.environ.get(TRUSTED, "").split(os.pathsep)
    return any(each and Path(each).resolve() == Path(path).resolve() for each in listed)


def _is_zip(path: str | os.PathLike[str]) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _refuse_other_formats(path: str | os.PathLike[str], zipped: bool) -> None:
    # asked of torch's own reader, because two readers of zip files may see different contents
    if zipped and torch._C.PyTorchFileReader(str(path)).has_record("constants.pkl"):
        raise _needs_more(path, "TorchScript")
    if not zipped and tarfile.is_tarfile(path):
        raise _needs_more(path, "the tar format of torch < 0.1.10")


@contextmanager
def _plain_values_admitted() -> Iterator[None]:
    before = list(torch.serialization.get_safe_globals())
    torch.serialization.add_safe_globals(_PLAIN)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _wanted(error: Exception) -> str | None:
    """The global that ``weights_only`` refused, or None if the file is damaged."""
    if not isinstance(error, pickle.UnpicklingError):
        return None
    found = (re.search(pattern, str(error)) for pattern in _UNSUPPORTED)
    wanted = next((match.group(1) for match in found if match), None)
    # torch 2.5 and later leave out the module of Python's own functions
    return f"builtins.{wanted}" if wanted in vars(builtins) else wanted


def _needs_more(path: str | os.PathLike[str], wanted: str) -> DensError:
    return DensError(
        f"checkpoint: {path} needs {wanted}, which is neither weights nor a plain value. Loading "
        "it could run any code that is in the file, so nothing was loaded; if you trust the "
        f"source of the file, set {TRUSTED}={path} in the environment and run the command again"
    )
