"""``dens-ocp doctor``: the order of the checks, and the exit code."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from dens_ocp.tools.doctor.finding import OK, PROBLEM, WARNING, Finding, guarded
from dens_ocp.tools.doctor.imports import Imported, check_imports, try_imports
from dens_ocp.tools.quiet import quiet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``dens-ocp doctor``."""
    parser.description = (
        "Check the installation and, given a config, the data, options and model of a run: its "
        "records are put into batches, and the model is run once on two of them, forward and "
        "backward. Every line says ok, warning or problem; problems come with what to do. Trains "
        "nothing and writes nothing. Works where fairchem cannot be imported. Exit code: 0 without "
        "problems, 2 with."
    )
    parser.epilog = (
        "Settings of the config are overridden with --section.option=value, as of fairchem main: "
        "dens-ocp doctor configs/oc20/2M/equiformer_v2_dens_12_epochs.yml "
        "--dataset.train.src=/data/oc20/train_2M"
    )
    parser.add_argument("config", nargs="?", type=Path, help="training config (YAML)")
    parser.add_argument("--config-yml", type=Path, help="the same, spelt as of fairchem main")
    parser.add_argument(
        "--run-dir", type=Path, default=Path(), help="folder the run will write to, --run-dir of "
        "fairchem main"
    )  # fmt: skip
    parser.add_argument(
        "--all",
        action="store_true",
        dest="everything",
        help="read every record of every data set (with a progress bar), not a dozen of each",
    )
    parser.set_defaults(overrides=[])


@quiet()
def run(args: argparse.Namespace) -> int:
    """Print findings as they come.

    Returns:
        0 without problems, 2 with.
    """
    counts: Counter[str] = Counter()
    for finding in all_findings(args):
        print(finding, flush=True)
        counts[finding.status] += 1
    print(
        f"\n{counts[OK]} ok, {counts[WARNING]} warnings, {counts[PROBLEM]} problems"
        + ("; problems first: the earlier one may be the cause of the later" if counts[PROBLEM]
           else "")
    )  # fmt: skip
    return 2 if counts[PROBLEM] else 0


def all_findings(args: argparse.Namespace) -> Iterator[Finding]:
    """Every check in order; those that need what is broken say that they were left out."""
    yield from _versions()
    found = try_imports()
    yield from guarded("imports", lambda: check_imports(found))
    yield from _machine(found)
    path = args.config_yml or args.config
    if path is None:
        yield from _folder_and_logger({}, args.run_dir, None)
    elif any(each.error for each in found.values()):
        yield Finding(
            WARNING, "config", f"{path} and its data are not checked while imports fail (above)"
        )
        yield from _folder_and_logger({}, args.run_dir, None)
    else:
        yield from _run(path, args)


def _versions() -> Iterator[Finding]:
    try:
        from dens_ocp.tools.doctor import versions
    except ImportError as error:  # packaging itself
        yield Finding(PROBLEM, "packages", str(error), "python -m pip install packaging")
        return
    yield from guarded("python", versions.check_python)
    yield from guarded("packages", versions.check_packages)


def _machine(found: Mapping[str, Imported]) -> Iterator[Finding]:
    from dens_ocp.tools.doctor import collectives, devices, programs

    works = {name: not result.error for name, result in found.items()}
    if works.get("torch"):
        yield from guarded("GPU", devices.check_torch_device)
        if works.get("torch_scatter") and works.get("torch_sparse"):
            yield from guarded("torch-scatter", devices.check_extensions)
        yield from guarded("gloo", collectives.check_collectives)
    else:
        yield Finding(WARNING, "GPU", "GPUs, gloo and NCCL are not checked: torch is broken")
    yield from guarded("commands", programs.check_scripts)


def _folder_and_logger(
    config: Mapping[str, Any], run_dir: Path, parameters: int | None
) -> Iterator[Finding]:
    from dens_ocp.tools.doctor import programs, run_folder

    logger = config.get("logger", "wandb")
    yield from guarded("logger", partial(run_folder.check_logger, logger, bool(config)))
    yield from guarded("run-dir", partial(run_folder.check_run_folder, run_dir, parameters))
    yield from guarded("SLURM", partial(programs.check_slurm, bool(config.get("slurm"))))


def _run(path: Path, args: argparse.Namespace) -> Iterator[Finding]:
    """Checks of a config; everything can be imported."""
    from dens_ocp.errors import DensError
    from dens_ocp.registration import register
    from dens_ocp.settings import run_config
    from dens_ocp.settings.sections.optim import needed_for_training
    from dens_ocp.tools.doctor import data, training
    from dens_ocp.tools.doctor.finding import refused

    register()
    try:
        config = run_config.read(path, args.overrides)
        sections = run_config.data_sections(config)
        needed_for_training(config["optim"])
    except DensError as error:
        yield refused("config", error)
        return
    yield Finding(OK, "config", str(path))
    parameters = model = None

    def check_model() -> Iterator[Finding]:
        nonlocal parameters, model
        model = training.build_model(config["model"])
        parameters = sum(each.numel() for each in model.parameters())
        yield Finding(OK, "model", f"{config['model']['name']}, {parameters:,} parameters")

    checks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("optim.dens", partial(training.check_dens, config)),
        ("normalizer", partial(training.check_normalizers, config)),
        ("model", check_model),
    ]
    if "train" not in sections:
        yield Finding(
            PROBLEM, "dataset.train", "no src: nothing to train on", "--dataset.train.src=PATH"
        )
    for name, check in checks:
        yield from guarded(name, check)
    for split, section in sections.items():
        check = partial(data.check_data_set, config, split, section, args.everything, model)
        yield from guarded(f"dataset.{split}", check)
    yield from _folder_and_logger(config, args.run_dir, parameters)
