"""The first line of a training run: a new one, or one that goes on, and where."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from fairchem.core.common import distutils

from dens_ocp.checkpoints import checkpoint_files, kept_checkpoints
from dens_ocp.errors import DensError, nearest

_OF_THE_CLOCK = re.compile(r"\d{4}(-\d\d){5}-\d{6}")


def first_line(run_dir: str | Path, name: str | None, checkpoint: str | None) -> str:
    """One sentence about a training run, from what it was started with. Tensors are not read.

    Args:
        run_dir: ``--run-dir``. name: ``--timestamp-id``, or None. checkpoint: ``--checkpoint``.
    """
    runs = Path(run_dir) / "checkpoints"
    folder = None if name is None else runs / name
    if checkpoint is not None:
        path = Path(checkpoint)
        step, begins = step_of(path), "" if name is None else f" {name}"
        if step is None:
            return f"New run{begins}: step 0, with the weights of {path}"
        if folder is not None and path.resolve().parent == folder.resolve():
            return f"Run {name} resumes at step {step}, from {path}"
        return (
            f"New run{begins}: resumes at step {step} of {path.resolve().parent.name}, from {path}"
        )
    if folder is None:
        return "New run"
    for path in _newest_first(folder):
        step = step_of(path)
        if step is not None:
            return f"Run {name} resumes at step {step}, from {path}"
    hint = "" if _OF_THE_CLOCK.match(name) else nearest(name, _with_checkpoints(runs))
    return f"New run {name} (there is no checkpoint in {folder} to resume from{hint})"


def step_of(path: Path) -> int | None:
    """Of a checkpoint with the state of its run; None: of weights alone, or not readable."""
    try:
        content = checkpoint_files.read_content(path, "cpu", mmap=True)
    except DensError:
        return None  # said when it is loaded
    return content.get("step") if isinstance(content, dict) else None


def say_what_has_no_effect(
    config: dict[str, Any],
    checkpoint: dict[str, Any],
    normalizers: dict[str, Any],
    *,
    lambdas: bool,
) -> None:
    """Log, on rank 0, which options of the config a resumed run does not look at; arguments as
    :func:`without_effect` and :func:`normalizers_without_effect`."""
    transforms = config["dataset"].get("transforms") or {}
    found = without_effect(config, checkpoint, lambdas)
    found += normalizers_without_effect(transforms.get("normalizer"), normalizers)
    if found and distutils.is_master():
        logging.warning(
            "These options have no effect, because the values of the checkpoint are used: %s",
            "; ".join(found),
        )


def without_effect(config: dict[str, Any], checkpoint: dict[str, Any], lambdas: bool) -> list[str]:
    """Options that a resumed run does not look at, because their values come from the checkpoint.

    Args:
        config: the trainer's. checkpoint: that was loaded.
        lambdas: the schedule is a ``LambdaLR``, whose options do take effect.

    Returns:
        One phrase for each option whose value is not what it was.
    """
    optim = config["optim"]
    groups = (checkpoint.get("optimizer") or {}).get("param_groups") or [{}]
    # (the config in a checkpoint is what its run was given, which may have been without effect too)
    pairs = [
        ("lr_initial", optim.get("lr_initial"), groups[-1].get("initial_lr")),
        ("weight_decay", optim.get("weight_decay"), groups[-1].get("weight_decay")),
        ("ema_decay", optim.get("ema_decay"), (checkpoint.get("ema") or {}).get("decay")),
    ]
    pairs += [
        (f"optimizer_params.{name}", value, groups[-1].get(name))
        for name, value in (optim.get("optimizer_params") or {}).items()
    ]
    if not lambdas:
        state = checkpoint.get("scheduler") or {}
        pairs += [
            (f"scheduler_params.{name}", value, state.get(name))
            for name, value in (optim.get("scheduler_params") or {}).items()
            if "epochs" not in name
        ]
    return [
        f"optim.{name}: {given} (the checkpoint's {used} is used)"
        for name, given, used in pairs
        if given is not None and used is not None and _plain(given) != _plain(used)
    ]


def normalizers_without_effect(config: dict[str, Any], normalizers: dict[str, Any]) -> list[str]:
    """Values of ``normalizer`` that those of a loaded checkpoint have replaced.

    Args:
        config: ``dataset.train.transforms.normalizer``. normalizers: by target, in use.
    """
    found = []
    for target, options in (config or {}).items():
        if not isinstance(options, dict) or target not in normalizers:
            continue
        for name, used in (("mean", "mean"), ("stdev", "rmsd"), ("rmsd", "rmsd")):
            value = options.get(name)
            in_use = getattr(normalizers[target], used)
            if isinstance(value, (int, float)) and in_use.numel() == 1:
                if abs(float(in_use) - value) > 1e-5 * max(abs(value), 1e-3):
                    found.append(
                        f"dataset.train.transforms.normalizer.{target}.{name}: {value} (the "
                        f"checkpoint's {float(in_use):.6g} is used)"
                    )
    return found


def _newest_first(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    newest = folder / kept_checkpoints.NEWEST
    older = [path for _, path in kept_checkpoints.older(folder)]
    return [newest, *older] if newest.is_file() else older


def _with_checkpoints(runs: Path) -> list[str]:
    if not runs.is_dir():
        return []
    return [each.name for each in runs.iterdir() if _newest_first(each)]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
