"""``dens-ocp doctor``: the order of the checks, and the exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from dens_ocp.settings.command_line import Command
from dens_ocp.settings.recipes import ConfigPath
from dens_ocp.tools.doctor import machine, packages
from dens_ocp.tools.doctor.finding import OK, PROBLEM, WARNING, Finding, guarded, refused
from dens_ocp.tools.quiet import quiet

_PATH = click.Path(path_type=Path)


@click.command(
    cls=Command,
    overrides=True,
    help="Check the installation and, if you give a config, the data, options and model of a "
    "run: records are read and put into batches, and the model computes one forward and backward "
    "pass on two of them. Each line says ok, warning or problem, and how to repair a problem. "
    "The command trains nothing and writes nothing. It also works if fairchem cannot be "
    "imported. Exit code: 0 without problems, 2 with problems.",
    epilog="To override a setting of the config, add --section.option=value, as with fairchem "
    "main: dens-ocp doctor configs/oc20/2M/equiformer_v2_dens_12_epochs.yml "
    "--dataset.train.src=/data/oc20/train_2M",
)
@click.argument("config", type=ConfigPath(path_type=Path), required=False)
@click.option(
    "--config-yml",
    type=ConfigPath(path_type=Path),
    help="same as CONFIG, in the spelling of fairchem main",
)
@click.option(
    "--run-dir",
    type=_PATH,
    default=Path(),
    show_default=True,
    help="folder that the run will write to (--run-dir of fairchem main)",
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="read all records of all data sets (with a progress bar), instead of ten of each",
)
@click.pass_context
@quiet()
def command(
    context: click.Context,
    config: Path | None,
    config_yml: Path | None,
    run_dir: Path,
    everything: bool,
    overrides: list[str],
) -> None:
    counts: Counter[str] = Counter()
    for finding in all_findings(config_yml or config, run_dir, everything, overrides):
        click.echo(str(finding))
        counts[finding.status] += 1
    bad = counts[PROBLEM]
    first = "; start with the first problem, it may be the cause of later ones" if bad else ""
    click.echo(f"\n{counts[OK]} ok, {counts[WARNING]} warnings, {bad} problems{first}")
    context.exit(2 if bad else 0)


def all_findings(
    path: Path | None, run_dir: Path, everything: bool, overrides: list[str]
) -> Iterator[Finding]:
    """Every check in order; those that need what is broken say that they were left out."""
    yield from guarded("packages", packages.check_packages)
    found = packages.try_imports()
    yield from guarded("imports", partial(packages.check_imports, found))
    broken = {name for name, result in found.items() if result.error}
    if "torch" in broken:
        yield Finding(
            WARNING, "GPU", ("GPUs, gloo and NCCL are not checked, because torch is broken")
        )
    else:
        yield from guarded("GPU", machine.check_gpus)
        if not broken & {"torch_scatter", "torch_sparse"}:
            yield from guarded("torch-scatter", machine.check_extensions)
        yield from guarded("gloo", machine.check_collectives)
    yield from guarded("commands", machine.check_scripts)
    if path is not None and not broken:
        yield from config_findings(path, run_dir, everything, overrides)
        return
    if path is not None:
        text = f"{path} and its data are not checked, because imports fail (see above)"
        yield Finding(WARNING, "config", text)
    yield from _surroundings({}, run_dir, None)


def _surroundings(
    config: Mapping[str, Any], run_dir: Path, parameters: int | None
) -> Iterator[Finding]:
    logger = config.get("logger", "wandb")
    yield from guarded("logger", partial(machine.check_logger, logger, bool(config)))
    yield from _places(config, run_dir, parameters)


def _places(config: Mapping[str, Any], run_dir: Path, parameters: int | None) -> Iterator[Finding]:
    yield from guarded("run-dir", partial(machine.check_run_folder, run_dir, parameters))
    yield from guarded("SLURM", partial(machine.check_slurm, bool(config.get("slurm"))))


def config_findings(
    path: Path, run_dir: Path, everything: bool, overrides: list[str]
) -> Iterator[Finding]:
    """Checks of a config; everything can be imported."""
    from dens_ocp.errors import DensError
    from dens_ocp.registration import register
    from dens_ocp.settings import config_file, run_config
    from dens_ocp.settings.sections.optim import needed_for_training
    from dens_ocp.tools.config_model import build_model
    from dens_ocp.tools.doctor import data, training

    register()
    try:
        given = config_file.read(path)
        if "model" not in given and "evaluation" in given:
            yield from guarded("evaluation", partial(_evaluation_findings, path, overrides))
            yield from _places({}, run_dir, None)
            return
        config = run_config.read(path, overrides)
        sections = run_config.data_sections(config)
        needed_for_training(config["optim"])
    except DensError as error:
        yield refused("config", error)
        return
    yield Finding(OK, "config", str(path))
    parameters = model = None

    def check_model() -> Iterator[Finding]:
        nonlocal parameters, model
        model = build_model(config["model"])
        parameters = sum(each.numel() for each in model.parameters())
        yield Finding(OK, "model", f"{config['model']['name']}, {parameters:,} parameters")

    yield from guarded("optim.dens", partial(training.check_dens, config))
    yield from guarded("normalizer", partial(training.check_normalizers, config))
    yield from guarded("model", check_model)
    if "train" not in sections:
        text = "there is no src, so there are no training data"
        yield Finding(PROBLEM, "dataset.train", text, "--dataset.train.src=PATH")
    for split, section in sections.items():
        check = partial(data.check_data_set, config, split, section, everything, model)
        yield from guarded(f"dataset.{split}", check)
    yield from _surroundings(config, run_dir, parameters)


def _evaluation_findings(path: Path, overrides: list[str]) -> Iterator[Finding]:
    """Checks of a config of ``dens-ocp evaluate``, whose model comes from a checkpoint."""
    from dens_ocp.data.checks import LMDB_FORMATS, check_dataset_paths, check_lmdb_source
    from dens_ocp.errors import DensError
    from dens_ocp.results.pipeline.options import data_sets

    for option, section in data_sets(path, overrides).items():
        try:
            check_dataset_paths(section, option)
            if section.get("format", "lmdb") in LMDB_FORMATS:
                check_lmdb_source(section["src"], option)
        except DensError as error:
            # a data set is a path here, or a section with src: both can be given as a path
            yield refused(option, DensError(str(error).replace(f"{option}.src", option)))
        else:
            yield Finding(OK, option, f"{section['src']}")
