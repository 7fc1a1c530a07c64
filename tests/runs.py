"""Configs and runs of the real CLI on small LMDBs."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from dens_ocp.checkpoints import metrics_file
from tests import lives
from tests.conftest import SMALL_EQUIFORMER
from tests.lives import Lives
from tests.lmdbs import write_is2re, write_s2ef

DENS = {"p": 0.5, "r": 0.5, "sigma": 0.1, "coefficient": 10}


def write_data(folder: Path) -> Path:
    """``train`` (12 frames), ``val`` (6) and ``relax`` (3 systems)."""
    write_s2ef(folder / "train", 12, seed=0)
    write_s2ef(folder / "val", 6, seed=1)
    write_is2re(folder / "relax", 3, seed=2)
    return folder


def small_config(data: Path, model: dict | None = None, dens: dict | None = DENS, **optim) -> dict:
    """A config that trains in a second an epoch; two epochs of four steps."""
    config = {
        "trainer": "dens_ocp.trainer.DeNSTrainer",
        "dataset": {
            "train": {
                "format": "lmdb",
                "src": str(data / "train"),
                "key_mapping": {"y": "energy", "force": "forces"},
                "transforms": {
                    "normalizer": {
                        "energy": {"mean": -0.3, "stdev": 1.4},
                        "forces": {"mean": 0.0, "stdev": 1.7},
                    }
                },
            },
            "val": {"src": str(data / "val")},
        },
        "logger": "tensorboard",
        "task": {},
        "loss_functions": [
            {"energy": {"fn": "mae", "coefficient": 2}},
            {"forces": {"fn": "l2mae", "coefficient": 100}},
        ],
        "evaluation_metrics": {
            "primary_metric": "forces_mae",
            "metrics": {"energy": ["mae"], "forces": ["mae", "cosine_similarity"]},
        },
        "outputs": {
            "energy": {"level": "system"},
            "forces": {"level": "atom", "train_on_free_atoms": True, "eval_on_free_atoms": True},
        },
        "model": model or SMALL_EQUIFORMER,
        "optim": {
            "batch_size": 3,
            "eval_batch_size": 3,
            "load_balancing": "atoms",
            "num_workers": 0,
            "lr_initial": 0.001,
            "optimizer": "AdamW",
            "optimizer_params": {"weight_decay": 0.001},
            "scheduler": "LambdaLR",
            "scheduler_params": {
                "lambda_type": "cosine",
                "warmup_factor": 0.2,
                "warmup_epochs": 0.25,
                "lr_min_factor": 0.01,
            },
            "max_epochs": 2,
            "clip_grad_norm": 100,
            "ema_decay": 0.9,
            "ddp_find_unused_parameters": False,  # as on GPUs
            **({} if dens is None else {"dens": dens}),
            **optim,
        },
    }
    return copy.deepcopy(config)


def write_config(path: Path, config: dict) -> Path:
    path.write_text(yaml.safe_dump(config))
    return path


def make_trainer(config: dict, run_dir: Path, name: str | None = None, **options):
    """Build the trainer as fairchem's ``new_trainer_context`` does, in this process."""
    from fairchem.core.common.registry import registry
    from fairchem.core.common.utils import setup_imports

    setup_imports()
    config = copy.deepcopy(config)
    settings = {
        "run_dir": str(run_dir), "is_debug": True, "seed": 0, "cpu": True, "local_rank": 0,
        "identifier": "", "name": "ocp", **options,
    }  # fmt: skip
    return registry.get_trainer_class(name or config["trainer"])(
        task=config.get("task", {}),
        model=config["model"],
        outputs=config["outputs"],
        dataset=config["dataset"],
        optimizer=config["optim"],
        loss_functions=config["loss_functions"],
        evaluation_metrics=config["evaluation_metrics"],
        logger=config["logger"],
        **settings,
    )


def logged(run_dir: Path, name: str = "*", split: str = "train") -> list[dict]:
    """Lines of a run's ``metrics.jsonl``."""
    (path,) = run_dir.glob(f"checkpoints/{name}/{metrics_file.NAME}")
    return metrics_file.read(path.parent, split)


def environment(**variables: str) -> dict[str, str]:
    """The environment of a run: one thread, no wandb account, the project importable."""
    root = Path(__file__).resolve().parents[1]
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(
            ("WANDB", "SLURM", "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER", "PYTEST_")
        )
        and name != "PYTHONDONTWRITEBYTECODE"  # else each process compiles the package again
    }
    # an empty entry would be the folder that a process is started in
    path = os.pathsep.join(filter(None, [str(root / "src"), kept.get("PYTHONPATH")]))
    return {
        **kept,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": path,
        "PYTHONWARNINGS": "ignore",
        **variables,
    }


def fairchem_alone() -> dict[str, str]:
    """The environment of a process that does not import ``dens_ocp``. What fairchem wants and is
    not installed here is in files: this package's stand-ins, which only ``dens_ocp`` would serve.
    Skips the test where fairchem cannot live with the packages that are installed.
    """
    from importlib.machinery import PathFinder

    from scipy import special

    if not hasattr(special, "sph_harm"):
        pytest.skip("fairchem-core 1.10.0 alone cannot be imported with this SciPy")
    gaps = Path(__file__).resolve().parents[1] / "src" / "dens_ocp" / "gaps"
    folder = Path(tempfile.gettempdir()) / f"fairchem-alone-{os.getpid()}"
    for name in ("torch_scatter", "torch_sparse"):
        if PathFinder.find_spec(name) is None:
            (folder / name).mkdir(parents=True, exist_ok=True)
            for file in ("__init__.py", "utils.py"):
                shutil.copy(gaps / f"{name}.py", folder / name / file)
    variables = environment()
    return {**variables, "PYTHONPATH": os.pathsep.join([variables["PYTHONPATH"], str(folder)])}


def lives_of_this_process() -> Lives:
    """What forks the runs of a test."""
    return lives.shared(tuple(environment().items()))


def dens_ocp(
    *arguments: str | Path, cwd: Path, check: bool = True, fresh: bool = False, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run ``dens-ocp`` with arguments, in ``cwd``; returns the finished process.

    Args:
        fresh: in a new interpreter, as for a user; else forked from one that has imported fairchem.
            Ranks are then started as torchrun starts them, and not by the command of
            ``--num-gpus``, whose ranks are new interpreters.
        variables: of the environment, which a new interpreter gets.
    """
    words = list(map(str, arguments))
    if fresh or variables:
        done = subprocess.run(
            [sys.executable, "-m", "dens_ocp.tools.cli", *words],
            cwd=cwd, env=environment(**variables), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
    else:
        ranks = 1
        if "--num-gpus" in words:
            at = words.index("--num-gpus")
            ranks = int(words[at + 1])
            del words[at : at + 2]
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / name for name in ("out", "err")]
            code = lives_of_this_process().start(words, cwd, *files, ranks=ranks).end(seconds=600)
            done = subprocess.CompletedProcess(words, code, *(each.read_text() for each in files))
    if check and done.returncode != 0:
        raise AssertionError(f"{words} failed:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done


def run(
    mode: str, config: Path, *arguments: str | Path, cwd: Path, check: bool = True, **options
) -> subprocess.CompletedProcess[str]:
    """Run ``dens-ocp main --mode MODE`` on the CPU, printing every step."""
    return dens_ocp(
        "main", "--mode", mode, "--config-yml", config, "--cpu", "--print-every", "1",
        "--run-dir", cwd, *arguments, cwd=cwd, check=check, **options,
    )  # fmt: skip
