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

    strict_load: Flag = True
    prediction_dtype: one_of("float16", "float32") = "float16"
    set_deterministic_scatter: Flag = False
    # relaxations
    eval_relaxations: Flag = False
    relax_dataset: Any = None
    relaxation_steps: Whole = Field(300, ge=0, examples=[300])
    relaxation_fmax: Number = Field(0.02, gt=0, examples=[0.02])
    num_relaxation_batches: Whole = Field(1, ge=1)
    relax_cell: Flag = False
    relax_volume: Flag = False
    save_full_traj: Flag = True
    write_pos: Flag = False
    relax_opt: Any = None
    # configs before version 2
    dataset: str = "lmdb"
    primary_metric: str = ""
    train_on_free_atoms: Flag = False
    eval_on_free_atoms: Flag = True
    # without effect
    description: str = ""
    type: str = ""
    metric: str = ""
    labels: Any = None
    grad_input: str = ""
    tag_specific_weights: Any = None


def _optimizer(name: Any) -> str:
    if str(name).lower() != "lbfgs":
        near = nearest(str(name), ["lbfgs"])
        raise ValueError(
            f"is not known{near}; fairchem has only one optimizer for batches, name: lbfgs"
        )
    return "lbfgs"


class RelaxOptions(FairchemSection):
    """``task.relax_opt``: fairchem's L-BFGS (Angstrom, eV/Angstrom²) and where trajectories go."""

    name: Annotated[str, BeforeValidator(_optimizer)] = "lbfgs"
    maxstep: Number = Field(0.2, gt=0, examples=[0.2])
    damping: Number = Field(1.0, gt=0, examples=[1.2])
    alpha: Number = Field(70.0, gt=0, examples=[80.0])
    memory: Whole = Field(50, ge=1, examples=[50])
    traj_dir: Any = None


class Logger(FairchemSection):
    """``logger`` as a mapping."""

    name: str = "wandb"
    project: Any = None
    entity: Any = None
    group: Any = None
    watch: Whole = Field(1000, ge=1, examples=[1000])
    log_weight_table: Whole = Field(-1, examples=[-1])


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
