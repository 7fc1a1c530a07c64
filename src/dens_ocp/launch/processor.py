"""CPU or GPU: what the command line says, what is there, and how a batch gets to it."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch


def choose(args: argparse.Namespace, say: bool = True) -> None:
    """Set ``args.cpu`` where no GPU is there, with a note; ``args.amp`` has no effect on a CPU.

    Without ``--cpu`` fairchem takes NCCL, which ends in a stack trace on such a machine. With
    ``--submit`` the job runs elsewhere.

    Args:
        args: of ``fairchem main`` or of a command that hands these options on.
        say: print the notes (one rank of several does).
    """
    if not args.cpu and not getattr(args, "submit", False) and not torch.cuda.is_available():
        args.cpu = True
        _note("torch sees no GPU, so this runs on the CPU (as with --cpu)", say)
    if args.cpu and args.amp:
        args.amp = False
        _note("--amp has no effect on the CPU: fairchem uses mixed precision on GPUs only", say)


def on_device(batch: Any, device: torch.device) -> Any:
    """The batch on the device; the host does not wait for the copy, nor for the steps before it.

    The loader's fields lie in pinned memory already; those of the step's plan follow here.
    """
    if device.type == "cuda":
        batch = batch.pin_memory()
    return batch.to(device, non_blocking=True)


def _note(text: str, say: bool) -> None:
    if say:
        print(f"note: {text}", file=sys.stderr, flush=True)
