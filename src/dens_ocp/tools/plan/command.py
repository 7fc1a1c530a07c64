"""``dens-ocp plan``: options, and the order of things."""

from __future__ import annotations

import argparse
import gc
import json
from pathlib import Path
from typing import Any

import torch

from dens_ocp.errors import DensError
from dens_ocp.settings import run_config
from dens_ocp.tools.plan.hardware import GPUS, PAPER, Gpu
from dens_ocp.tools.plan.job import Job, job_of
from dens_ocp.tools.plan.measure import Measured, build, measure
from dens_ocp.tools.plan.plan import Network, make_plan, speed_from_paper, speed_measured
from dens_ocp.tools.plan.text import text_of
from dens_ocp.tools.quiet import quiet

_CPU_NETWORK = (5e9, 1.25e9)
"""Bytes/s within a machine and of 10 Gbit/s Ethernet, where gloo sums on CPUs."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``dens-ocp plan``."""
    parser.description = (
        "Memory, steps, time and GPU-hours of a training run on GPUs that are not here: exact "
        "counts, a short run of the model with one and two blocks on this machine (about a minute "
        "on a CPU), and a model of cost calibrated with the paper's GPU-hours. docs/planning.md "
        "says how, and how far to trust it."
    )
    parser.epilog = (
        "Settings of the config are overridden with --section.option=value, as of fairchem main: "
        "dens-ocp plan configs/oc20/2M/equiformer_v2_dens_12_epochs.yml --gpus 16 --gpu a100 "
        "--optim.batch_size=8"
    )
    parser.add_argument("config", type=Path, help="training config (YAML)")
    parser.add_argument("--gpus", type=int, required=True, help="number of GPUs in all; e.g. 16")
    parser.add_argument(
        "--nodes", type=int, help="number of nodes they are in (default: 8 GPUs a node)"
    )
    parser.add_argument(
        "--gpu",
        choices=[*GPUS, "cpu", "here"],
        help="kind of GPU; here: the one of this machine, with its measured time; cpu: processes "
        "like this machine's (default: here if there is a GPU, else v100)",
    )
    parser.add_argument(
        "--structures", type=int, help="size of the training set (default: its metadata.npz if it "
        "is here, else the paper's for a recipe)"
    )  # fmt: skip
    parser.add_argument(
        "--atoms", type=float, help="mean atoms of a structure (default: metadata.npz, or OC20's)"
    )
    parser.add_argument(
        "--neighbors", type=float, help="mean edges of an atom (default: model.max_neighbors)"
    )
    parser.add_argument(
        "--intra-node-gb-s", type=float, metavar="GB/S",
        help="all-reduce bandwidth of a GPU within a node (default: NVLink of the GPU)",
    )  # fmt: skip
    parser.add_argument(
        "--inter-node-gb-s", type=float, metavar="GB/S",
        help="network bandwidth of a node, e.g. 12.5 for 100 Gbit/s (default: usual with the GPU)",
    )  # fmt: skip
    parser.add_argument(
        "--overlap", type=float, default=0.5, help="share of the backward pass that can hide "
        "communication, 0 to 1"
    )  # fmt: skip
    parser.add_argument(
        "--amp", action=argparse.BooleanOptionalAction, default=True,
        help="mixed precision, --amp of fairchem main, as in the authors' scripts; --no-amp: "
        "float32, which takes about twice the memory (never used with --gpu cpu)",
    )  # fmt: skip
    parser.add_argument(
        "--measure", action=argparse.BooleanOptionalAction, default=True,
        help="run the model with fewer blocks; without it memory of the batch is unknown, and time "
        "too unless the config is one of the paper's",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(overrides=[])


@quiet()
def run(args: argparse.Namespace) -> int:
    """Plan.

    Raises:
        DensError: a mistake in options or config.
    """
    config = run_config.read(args.config, args.overrides)
    job = job_of(config, args)
    kind = args.gpu or ("here" if torch.cuda.is_available() else PAPER)
    if kind == "here" and not torch.cuda.is_available():
        raise DensError("--gpu here: torch sees no GPU on this machine; name one, or --gpu cpu")
    if kind in ("here", "cpu") and not args.measure:
        raise DensError(f"--no-measure: the time of --gpu {kind} is measured; name a GPU instead")
    parameters = _parameters(config["model"])
    device = torch.device("cuda" if kind != "cpu" and torch.cuda.is_available() else "cpu")
    amp = args.amp and kind != "cpu"
    measured = None
    if args.measure:
        measured = _measured(config["model"], device, job, amp, progress=not args.json)
    flops = job.paper.flops if job.paper else None
    activations = None
    if measured is not None:
        flops = measured.flops.at(config["model"]["num_layers"], job.atoms, job.edges)
        layers = config["model"]["num_layers"]
        activations = measured.peak_bytes.at(layers, job.atoms, job.edges)
    gpu = _gpu(kind)
    speed = None
    if kind in ("here", "cpu"):
        speed = speed_measured(flops, job.batch, measured)
    elif flops is not None:
        speed = speed_from_paper(flops, gpu, amp)
    network = Network(
        args.intra_node_gb_s * 1e9 if args.intra_node_gb_s else _links(gpu)[0],
        args.inter_node_gb_s * 1e9 if args.inter_node_gb_s else _links(gpu)[1],
        args.overlap,
    )
    optimizer = measured.optimizer_seconds * parameters if kind in ("here", "cpu") else 0.0
    memory = gpu.memory if gpu else None
    plan = make_plan(job, parameters, memory, network, speed, flops, activations, optimizer)
    name = gpu.name if gpu else "CPU process"
    print(json.dumps({"gpu": name, "amp": amp, **plan}, indent=2) if args.json
          else text_of(plan, name, amp, measured))  # fmt: skip
    return 0


def _parameters(model: dict[str, Any]) -> int:
    built = build(model, torch.device("cpu"))
    number = sum(each.numel() for each in built.parameters())
    del built
    gc.collect()
    return number


def _measured(
    model: dict[str, Any], device: torch.device, job: Job, amp: bool, progress: bool
) -> Measured:
    if device.type == "cpu":
        return measure(model, device, amp=amp, progress=progress)
    # one structure of OC20's size and a batch of a few: what a GPU is busy with
    atoms = max(8, int(job.atoms))
    return measure(model, device, (atoms, 3 * atoms), (2, 4), repeats=5, amp=amp, progress=progress)


def _gpu(kind: str) -> Gpu | None:
    if kind == "cpu":
        return None
    if kind != "here":
        return GPUS[kind]
    name = torch.cuda.get_device_name(0)
    known = next((gpu for key, gpu in GPUS.items() if key in name.lower()), GPUS["a100"])
    memory = float(torch.cuda.get_device_properties(0).total_memory)
    return Gpu(name, memory, known.flops, known.bandwidth, known.intra_node, known.inter_node)


def _links(gpu: Gpu | None) -> tuple[float, float]:
    return _CPU_NETWORK if gpu is None else (gpu.intra_node, gpu.inter_node)
