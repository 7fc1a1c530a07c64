"""``dens-ocp plan``: options, and the order of things."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from dens_ocp.errors import DensError
from dens_ocp.settings.command_line import Command
from dens_ocp.settings.recipes import ConfigPath
from dens_ocp.tools.plan.paper_runs import GPUS, Gpu, matching
from dens_ocp.tools.quiet import quiet


@click.command(
    cls=Command,
    overrides=True,
    help="Estimate memory, steps, time and GPU-hours of a training run on GPUs that this machine "
    "need not have: from exact counts, a short run of the model with one and two blocks on this "
    "machine (up to a minute on a CPU), and a cost model calibrated with the paper's GPU-hours. "
    "docs/planning.md explains the method and its limits.",
    epilog="To override a setting of the config, add --section.option=value, as with fairchem "
    "main: dens-ocp plan configs/oc20/2M/equiformer_v2_dens_12_epochs.yml --gpus 16 --gpu a100 "
    "--optim.batch_size=8",
)
@click.argument("config", type=ConfigPath(path_type=Path))
@click.option("--gpus", type=int, required=True, help="total number of GPUs, e.g. 16")
@click.option("--nodes", type=int, help="number of nodes (default: one for every 8 GPUs)")
@click.option(
    "--gpu",
    type=click.Choice([*GPUS, "here"]),
    help="kind of GPU. here: the GPU of this machine, with measured times; cpu: CPU processes "
    "like those of this machine (default: here if there is a GPU, else v100)",
)
@click.option(
    "--structures",
    type=int,
    help="number of structures in the training set (default: from its metadata.npz if that is on "
    "this machine, else the paper's number for a recipe)",
)
@click.option(
    "--atoms",
    type=float,
    help="mean number of atoms per structure (default: from metadata.npz, else OC20's mean)",
)
@click.option(
    "--neighbors", type=float, help="mean number of edges per atom (default: model.max_neighbors)"
)
@click.option(
    "--intra-node-gb-s",
    type=float,
    metavar="GB/S",
    help="all-reduce bandwidth of a GPU within a node (default: that of the GPU's NVLink)",
)
@click.option(
    "--inter-node-gb-s",
    type=float,
    metavar="GB/S",
    help="network bandwidth of a node, e.g. 12.5 for 100 Gbit/s (default: usual value for the GPU)",
)
@click.option(
    "--overlap",
    type=float,
    default=0.5,
    show_default=True,
    help="fraction of the backward pass that can hide communication, 0 to 1",
)
@click.option(
    "--amp/--no-amp",
    default=True,
    show_default=True,
    help="mixed precision (--amp of fairchem main), as in the authors' scripts; --no-amp: "
    "float32, which needs about twice the memory. With --gpu cpu always float32",
)
@click.option(
    "--measure/--no-measure",
    "measures",
    default=True,
    show_default=True,
    help="run the model with fewer blocks to measure it; without this the memory of the batch is "
    "unknown, and so is the time unless the config is one of the paper's",
)
@click.option("--json", "as_json", is_flag=True, help="print the plan as JSON")
@quiet()
def command(
    config: Path,
    gpu: str | None,
    intra_node_gb_s: float | None,
    inter_node_gb_s: float | None,
    overlap: float,
    amp: bool,
    measures: bool,
    as_json: bool,
    overrides: list[str],
    **size: Any,
) -> None:
    import torch

    from dens_ocp.settings import run_config
    from dens_ocp.tools.config_model import build_model
    from dens_ocp.tools.plan import estimate
    from dens_ocp.tools.plan.measure import extended, measure
    from dens_ocp.tools.plan.text import text_of

    settings = run_config.read(config, overrides)
    if not 0 <= overlap <= 1:
        raise DensError(f"--overlap: {overlap} is not a fraction; give a number from 0 to 1")
    paper = matching(settings)
    job = estimate.job_of(settings, paper, **size)
    cuda = torch.cuda.is_available()
    kind = gpu or ("here" if cuda else "v100")
    if kind == "here" and not cuda:
        raise DensError(
            "--gpu here: torch sees no GPU on this machine; name a kind of GPU, or give --gpu cpu"
        )
    if kind in ("here", "cpu") and not measures:
        raise DensError(
            f"--no-measure: with --gpu {kind} the time must be measured; name a kind of GPU instead"
        )
    of_kind = GPUS[kind] if kind != "here" else _gpu_here()
    of_kind = of_kind._replace(
        intra_node=1e9 * intra_node_gb_s if intra_node_gb_s else of_kind.intra_node,
        inter_node=1e9 * inter_node_gb_s if inter_node_gb_s else of_kind.inter_node,
    )
    amp = amp and kind != "cpu"
    model = settings["model"]
    parameters = sum(each.numel() for each in build_model(model, stock=True).parameters())
    measured = activations = speed = None
    flops = paper.flops if paper else None
    if measures:
        device = torch.device("cuda" if cuda and kind != "cpu" else "cpu")
        larger = {}
        if device.type == "cuda":  # one structure of the job's size and a batch of a few
            natoms = max(8, int(job["atoms"]))
            larger = {"sizes": (natoms, 3 * natoms), "depths": (2, 4), "repeats": 5}
        degree = max(1, round(job["degree"]))
        measured = measure(model, degree, device, amp=amp, progress=not as_json, **larger)
        flops = extended(measured.flops, model["num_layers"], job["atoms"])
        activations = extended(measured.peak_bytes, model["num_layers"], job["atoms"])
    if kind in ("here", "cpu"):
        speed = estimate.speed_measured(flops, job["batch"], measured)
    elif flops is not None:
        speed = estimate.speed_from_paper(flops, of_kind, amp)
    plan = estimate.make_plan(job, parameters, of_kind, overlap, speed, flops, activations)
    plan |= {"paper_gpu_hours": paper.hours if paper else None, "amp": amp}
    click.echo(json.dumps(plan, indent=2) if as_json else text_of(plan, measured))


def _gpu_here() -> Gpu:
    import torch

    name = torch.cuda.get_device_name(0)
    known = next((gpu for key, gpu in GPUS.items() if key in name.lower()), GPUS["a100"])
    memory = float(torch.cuda.get_device_properties(0).total_memory)
    return known._replace(name=name, memory=memory)
