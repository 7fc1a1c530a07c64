"""``task`` and ``logger``."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from dens_ocp.dens.options import FairchemSection, chosen, is_missing, mapping, one_of, read
from dens_ocp.errors import DensError, nearest
from dens_ocp.settings.sections.dataset import data_format
from dens_ocp.settings.sections.values import Flag, Number, Whole, registered


class Task(FairchemSection):
    """What fairchem-core 1.10.0 and this package read of ``task``; the last block is known from
    published configs."""

    strict_load: Flag = Field(
        True,
        description="the checkpoint must hold the parameters of the model, no more and no fewer",
    )
    prediction_dtype: one_of("float16", "float32") = Field(
        "float16",
        description="number format in prediction files. float16 has three to four digits, and "
        "its largest number is 65504",
    )
    set_deterministic_scatter: Flag = Field(
        False,
        description="sum over atoms and edges in the same order each time, slower; for relaxations",
    )
    # relaxations
    eval_relaxations: Flag = Field(
        False, description="in training, relax dataset.relax at each validation"
    )
    relax_dataset: Any = Field(
        None,
        description="needed by fairchem-core for eval_relaxations and not used; leave it out",
    )
    relaxation_steps: Whole = Field(
        300,
        ge=0,
        examples=[300],
        description="largest number of steps; 0: compute energies and forces of the initial "
        "structures",
    )
    relaxation_fmax: Number = Field(
        0.02,
        gt=0,
        examples=[0.02],
        description="a structure is relaxed if no force is larger, eV/Angstrom",
    )
    num_relaxation_batches: Whole = Field(
        1, ge=1, description="relax only this number of batches (default: all)"
    )
    relax_cell: Flag = Field(False, description="also relax the cell; needs a model with stress")
    relax_volume: Flag = Field(
        False,
        description="relax the volume of the cell and keep its shape; needs a model with stress",
    )
    save_full_traj: Flag = Field(
        True, description="write all frames of a trajectory; False: the first and the last frame"
    )
    write_pos: Flag = Field(
        False, description="write the relaxed positions of all systems to relaxed_positions.npz"
    )
    relax_opt: Any = Field(
        None, description="options of the optimizer, and the folder of trajectories"
    )
    # configs before version 2
    dataset: str = Field(
        "lmdb", description="older configs: format of the data sets; use dataset.*.format"
    )
    primary_metric: str = Field(
        "", description="older configs: use evaluation_metrics.primary_metric"
    )
    train_on_free_atoms: Flag = Field(
        False, description="older configs: use outputs.forces.train_on_free_atoms"
    )
    eval_on_free_atoms: Flag = Field(
        True, description="older configs: use outputs.forces.eval_on_free_atoms"
    )
    # without effect
    description: str = Field("", description="known from published configs; without effect")
    type: str = Field("", description="known from published configs; without effect")
    metric: str = Field("", description="known from published configs; without effect")
    labels: Any = Field(None, description="known from published configs; without effect")
    grad_input: str = Field("", description="known from published configs; without effect")
    tag_specific_weights: Any = Field(
        None, description="known from published configs; without effect"
    )


def _optimizer(name: Any) -> str:
    if str(name).lower() != "lbfgs":
        near = nearest(str(name), ["lbfgs"])
        raise ValueError(
            f"is not known{near}; fairchem has only one optimizer for batches, name: lbfgs"
        )
    return "lbfgs"


class RelaxOptions(FairchemSection):
    """``task.relax_opt``: fairchem's L-BFGS (Angstrom, eV/Angstrom²) and where trajectories go."""

    name: Annotated[str, BeforeValidator(_optimizer)] = Field(
        "lbfgs", description="only lbfgs: fairchem-core has no other optimizer for batches"
    )
    maxstep: Number = Field(
        0.2, gt=0, examples=[0.2], description="longest step of an atom, Angstrom"
    )
    damping: Number = Field(1.0, gt=0, examples=[1.2], description="factor of each step")
    alpha: Number = Field(
        70.0,
        gt=0,
        examples=[80.0],
        description="first guess of the curvature of the energy, eV/Angstrom^2",
    )
    memory: Whole = Field(
        50, ge=1, examples=[50], description="number of past steps that the optimizer keeps"
    )
    traj_dir: Any = Field(
        None,
        description="folder of the trajectories, one file for each system; with it, an "
        "interrupted relaxation can be resumed (default: write none)",
    )


class Logger(FairchemSection):
    """``logger`` as a mapping."""

    name: str = Field(
        "wandb", description="wandb, wandb_singleton, tensorboard, or the full name of a class"
    )
    project: Any = Field(None, description="project of wandb")
    entity: Any = Field(None, description="user or team of wandb")
    group: Any = Field(None, description="group of wandb runs")
    watch: Whole = Field(
        1000,
        ge=1,
        examples=[1000],
        description="wandb: log the weights and gradients after this number of steps",
    )
    log_weight_table: Whole = Field(
        -1,
        examples=[-1],
        description="wandb, with --amp: log a table of weights after this number of steps; -1: "
        "never",
    )


def task(block: Any, where: str = "task") -> dict[str, Any]:
    """The section, typed.

    Raises:
        DensError: an unknown name or value.
    """
    result = read(Task, block, where)
    if result.get("dataset") == "trajectory_lmdb_v2":
        # EquiformerV2's configs; fairchem has the same files under this name
        result["dataset"] = data_format(result["dataset"], f"{where}.dataset")
    if "relax_opt" in result:
        result["relax_opt"] = relax_options(result["relax_opt"], f"{where}.relax_opt")
    return result


def relax_options(block: Any, where: str = "task.relax_opt") -> dict[str, Any]:
    """``task.relax_opt``, typed.

    Raises:
        DensError: another optimizer, an unknown option, a value that is no positive number.
    """
    example = "relax_opt: {maxstep: 0.2, memory: 50, damping: 1.2, alpha: 80.0, traj_dir: FOLDER}"
    return read(RelaxOptions, block, where, example=example)


def logger(value: Any, where: str = "logger") -> Any:
    """A name, or a mapping with ``name``.

    Raises:
        DensError: a logger that is not known.
    """
    if is_missing(value):
        return None
    if isinstance(value, str):
        return _logger_name(value, where)
    block = mapping(value, where, "{name: wandb, project: my-project}")
    for name in block:
        if name not in Logger.model_fields and nearest(str(name), Logger.model_fields):
            raise DensError(f"unknown option {where}.{name}{nearest(name, Logger.model_fields)}")
    result = read(Logger, block, where, others=True)
    if "name" in result:
        result["name"] = _logger_name(result["name"], f"{where}.name")
    if result.get("name") == "wandb_singleton":
        for name in ("project", "entity"):
            if name not in result:
                raise DensError(f"{where}.{name} is missing: wandb_singleton needs it")
    return result


def _logger_name(name: str, where: str) -> str:
    if "." in name:
        return name
    return chosen(name, [*registered("logger", name), "wandb_singleton"], where)
