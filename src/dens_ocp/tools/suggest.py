"""``dens-ocp data suggest``: what ``dens: auto`` picks, beside the paper's values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from dens_ocp.errors import DensError
from dens_ocp.settings.command_line import Command
from dens_ocp.settings.recipes import ConfigPath

if TYPE_CHECKING:
    from dens_ocp.auto.evidence import Evidence
    from dens_ocp.auto.resolve import Picks


@click.command(
    cls=Command,
    overrides=True,
    short_help="suggest DeNS options for a training set",
    epilog="\b\nexamples:\n"
    "  dens-ocp data suggest config.yml --dataset.train.src=data/mine/train\n"
    "  dens-ocp data suggest data/mine/train --force-coefficient 100 --epochs 40\n"
    "With `optim: {dens: auto}` in the config each run picks the same options when it starts.",
)
@click.argument("source", type=ConfigPath(path_type=Path))
@click.option("--force-coefficient", type=float, metavar="N", help="lambda_F, the weight of the "
              "forces in the loss (default: that of the config; without a config 10, for forces "
              "divided by their rms)")  # fmt: skip
@click.option("--gradient-forces", is_flag=True, help="the model has gradient forces, as "
              "equiformer_dens (needed only without a config)")  # fmt: skip
@click.option("--epochs", type=click.FloatRange(min=0, min_open=True), metavar="N",
              help="planned epochs of training, for the estimate whether DeNS is likely to lower "
              "the errors (default: those of the config)")  # fmt: skip
def command(
    source: Path,
    force_coefficient: float | None,
    gradient_forces: bool,
    epochs: float | None,
    overrides: list[str],
) -> None:
    """Suggest DeNS options for a training set, next to the paper's, and show what similar trainings
    gained from DeNS.

    SOURCE: a training config (.yml), or a training set: a folder of *.lmdb, or one file.
    """
    from dens_ocp.auto.evidence import observe
    from dens_ocp.auto.resolve import force_coefficient as coefficient_of
    from dens_ocp.auto.resolve import pick
    from dens_ocp.settings import run_config
    from dens_ocp.tools.config_model import has_gradient_forces, scale_of

    parameters = None
    if source.suffix in (".yml", ".yaml"):
        config = run_config.read(source, overrides)
        sections = run_config.data_sections(config)
        if "train" not in sections:
            raise DensError(f"{source}: dataset.train has no src; give --dataset.train.src=PATH")
        evidence = observe(_open(sections["train"]))
        coefficient = force_coefficient or coefficient_of(config["loss_functions"])
        gradients = gradient_forces or has_gradient_forces(config["model"])
        scale = scale_of(sections["train"], "energy" if gradients else "forces")
        epochs = epochs or config["optim"].get("max_epochs")
        parameters = _parameters(config["model"]) if epochs else None
    else:
        evidence = observe(_open({"src": str(source)}), str(source))
        coefficient, gradients = force_coefficient or 10.0, gradient_forces
        # such a model's forces are in units of its energies' deviation
        scale = (evidence.energy_deviation or None) if gradients else None
    picks = pick(
        evidence,
        force_coefficient=coefficient,
        force_scale=scale,
        gradient_forces=gradients,
    )
    print(report(evidence, picks, coefficient, gradients))
    if epochs:
        print(does_it_pay(evidence.records, epochs, parameters))


def _parameters(model: Mapping[str, Any]) -> int | None:
    """Of a config's model; None of one that cannot be built: DeNS' options are suggested all the
    same."""
    from dens_ocp.tools.config_model import build_model

    try:
        return sum(each.numel() for each in build_model(model).parameters())
    except DensError:
        return None


def _open(section: dict[str, Any]) -> Any:
    from dens_ocp.data.checks import check_dataset_paths
    from dens_ocp.data.opened_data import open_data_set
    from dens_ocp.data.records.named_records import read_with

    section = {"format": "dens_lmdb", **section}
    check_dataset_paths(section, "dataset.train")
    dataset = open_data_set(section, "train")
    read_with(dataset)
    return dataset


def report(evidence: Evidence, picks: Picks, coefficient: float, gradients: bool) -> str:
    """Everything as text."""
    from tabulate import tabulate

    from dens_ocp.auto.resolve import NOTE, PAPER

    moved = "-" if evidence.displacement is None else f"{evidence.displacement:.3f} A"
    here = {
        **{name: f"{value:g}" if isinstance(value, float) else value
           for name, value in picks.options.items()},
        "lambda_F": f"{coefficient:g}",
        "forces": "gradient" if gradients else "direct",
    }  # fmt: skip
    rows = [[name, here[name], *(paper[name] for paper in PAPER.values())] for name in here]
    lines = [
        f"{evidence.records:,} records, {evidence.read} of them read: {evidence.free_atoms:g} "
        f"free atoms per structure, nearest neighbours at {evidence.nearest:.2f} A, displacement "
        f"{moved} ({evidence.pairs} pairs), rms force {evidence.force_rms:.3f} eV/A",
        "",
        tabulate(rows, ["option", "here", *PAPER], disable_numparse=True),
        NOTE,
        "",
        *(f"{name}: {reason}" for name, reason in picks.reasons.items()),
        "",
        "for your config (or write dens: auto, which picks the same):",
        "",
        yaml.safe_dump({"optim": {"dens": picks.options}}, sort_keys=False),
    ]
    return "\n".join(lines)


def does_it_pay(structures: int, epochs: float, parameters: int | None) -> str:
    """What was measured of trainings like one, as text; see :mod:`dens_ocp.auto.expected_gain`."""
    from tabulate import tabulate

    from dens_ocp.auto.expected_gain import expectation, nearest

    found = nearest(structures, epochs, parameters)
    rows = [
        [each.data, f"{each.structures:,}", f"{each.epochs:g}", f"{each.parameters:,}",
         f"{each.gain:g}" + ("" if each.error is None else f" +- {each.error:g}"), each.source]
        for each in found
    ]  # fmt: skip
    size = "" if parameters is None else f", {parameters:,} parameters"
    asked = f"Does DeNS lower the errors with {structures:,} structures, {epochs:g} epochs{size}?"
    if not found:
        return f"{asked}\n{expectation(found)}"
    header = ["training", "structures", "epochs", "parameters", "lower force MAE (%)", "source"]
    return (
        f"{asked}\n{expectation(found)}\n\n{tabulate(rows, header, disable_numparse=True)}\n"
        "force MAE on unseen structures, with and without DeNS for the same number of epochs; "
        "+-: standard error over seeds, where there are several"
    )
