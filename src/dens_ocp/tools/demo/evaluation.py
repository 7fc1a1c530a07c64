"""What is done with a trained model: the demo's ``dens-ocp evaluate``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from dens_ocp.checkpoints import checkpoint_files
from dens_ocp.results.pipeline.conclude import conclude
from dens_ocp.results.pipeline.evaluate import RunOptions, prepare, run_jobs
from dens_ocp.results.pipeline.folder import EvaluationFolder, sha256
from dens_ocp.results.pipeline.options import load_settings
from dens_ocp.results.pipeline.side_by_side import cores
from dens_ocp.tools.demo.config import recipe
from dens_ocp.tools.demo.runs import Trained


def write_config(
    path: Path,
    s2ef: dict[str, Path],
    is2re: dict[str, Path] | None = None,
    relaxation_steps: int | None = None,
    board: str | None = None,
) -> Path:
    """The config of ``dens-ocp evaluate`` for these splits; returns ``path``."""
    section: dict[str, Any] = {
        **({} if board is None else {"board": board}),
        "s2ef": {split: str(source) for split, source in s2ef.items()},
        "is2re": {split: str(source) for split, source in (is2re or {}).items()},
    }
    task = dict(recipe()["task"])
    if relaxation_steps is not None:
        task["relaxation_steps"] = relaxation_steps
    config = {"evaluation": section, "task": task}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def evaluate(
    trained: Trained, config: Path, out: Path, seed: int, say: Callable[[str], None]
) -> EvaluationFolder:
    """``dens-ocp evaluate CHECKPOINT --config-yml CONFIG --out OUT --cpu``, two runs at a time."""
    workers = cores()
    options = RunOptions(("--cpu", "--seed", str(seed)), workers, threads=1)
    say(
        f"dens-ocp evaluate {trained.checkpoint} --config-yml {config} --out {out} --cpu "
        f"--seed {seed} --at-a-time {workers}"
    )
    checkpoint = checkpoint_files.read(trained.checkpoint, torch.device("cpu"))
    settings = load_settings(config, checkpoint, [])
    folder = EvaluationFolder(out)
    with folder.locked(say) as locks:
        jobs = prepare(settings, trained.checkpoint, sha256(trained.checkpoint), folder)
        run_jobs(jobs, trained.checkpoint, options, locks, say)
        conclude(settings, folder, report=True, say=lambda line: None)
    return folder
