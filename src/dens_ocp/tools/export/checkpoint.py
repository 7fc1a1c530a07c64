"""Writes the exported checkpoint and its config, after a comparison with the original."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import yaml
from ase.build import add_adsorbate, fcc111, molecule
from fairchem.core.common.utils import load_model_and_weights_from_checkpoint
from fairchem.core.datasets import data_list_collater
from fairchem.core.preprocessing import AtomsToGraphs
from torch_geometric.data import Batch

import dens_ocp
from dens_ocp import whole_files
from dens_ocp.errors import DensError
from dens_ocp.tools.export.source import Source
from dens_ocp.tools.export.stock_model import (
    checkpoint_config,
    stock_config,
    stock_options,
    stock_state,
)

LARGEST_DIFFERENCE = 1e-5
"""Relative. Both models compute the same in float32, but add up the initial embedding in another
order; that rounds differently in the last digit (1e-7), and a deep model carries it on."""

_HEADER = """\
# Config of {name} for stock fairchem-core 1.10.0, written by dens-ocp export.
#
#   fairchem --mode predict --config-yml {yml} --checkpoint {name} --dataset.test.src=LMDBS
#
# Normalizers and element references come with the checkpoint.

"""


def write_exported(
    source: Source, out: Path, yml: Path, origin: str
) -> tuple[torch.nn.Module, str, dict[str, float]]:
    """Write the checkpoint ``out`` and its config ``yml``.

    The file is written under another name, read by fairchem's own function, compared with the DeNS
    model, and only then named ``out``.

    Args:
        source: from :func:`~dens_ocp.tools.export.source.read_source`.
        out, yml: existing files are replaced.
        origin: the original's name, noted in the checkpoint.

    Returns:
        The stock model, its name, and what
        :func:`largest_differences` says.

    Raises:
        DensError: the exported model predicts something else; nothing is left on the disk.
    """
    model = stock_options(type(source.model), source.options)
    config = stock_config(source.config, model)
    # as fairchem writes best_checkpoint.pt: weights without the state of a training run
    content = {
        "state_dict": stock_state(source.model),
        "normalizers": source.normalizers,
        "elementrefs": source.references,
        "config": checkpoint_config(config),
        "val_metrics": None,
        "amp": None,
        "exported": {
            "by": f"dens-ocp {dens_ocp.__version__}",
            "from": origin,
            "weights": source.weights,
            "step": source.step,
        },
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = [file.with_name(f".{file.name}.{os.getpid()}") for file in (out, yml)]
    try:
        torch.save(content, temporary[0])
        header = _HEADER.format(name=out.name, yml=yml.name)
        temporary[1].write_text(header + yaml.safe_dump(config, sort_keys=False))
        stock = load_model_and_weights_from_checkpoint(str(temporary[0]))
        differences = largest_differences(source.model, stock, example_batch())
        if not all(value <= LARGEST_DIFFERENCE for value in differences.values()):
            shown = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
            raise DensError(
                f"{out} was not written: the predictions of the exported model differ from the "
                f"original, largest relative difference {shown}, more than {LARGEST_DIFFERENCE:g}"
            )
        whole_files.replace(temporary[1], yml)
        whole_files.replace(temporary[0], out)
    finally:
        for file in temporary:
            file.unlink(missing_ok=True)
    return stock, model["name"], differences


def example_batch() -> Batch:
    """CO on Cu(111) and H on Pt(111), rattled, as fairchem's calculator would convert them."""
    convert = AtomsToGraphs(r_pbc=True, r_edges=False)
    graphs = []
    for metal, adsorbate in (("Cu", molecule("CO")), ("Pt", "H")):
        atoms = fcc111(metal, (2, 2, 3), vacuum=8.0)
        add_adsorbate(atoms, adsorbate, height=1.9, position="ontop")
        atoms.pbc = True
        atoms.rattle(0.1, seed=0)
        graphs.append(convert.convert(atoms))
    return data_list_collater(graphs, otf_graph=True)


@torch.no_grad()
def largest_differences(
    model: torch.nn.Module, stock: torch.nn.Module, batch: Batch
) -> dict[str, float]:
    """Largest difference of each output, relative to the largest value of it.

    Both models draw random edge frames in each forward; they draw the same here.

    Returns:
        ``energy``, ``forces`` and what else both have (of a stress one may give its parts alone);
        NaN where an output is not finite.
    """
    outputs = []
    for each in (model.eval(), stock.eval()):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            outputs.append(each(batch.clone()))
    return {
        name: ((outputs[1][name].view_as(value) - value).abs().max() / value.abs().max()).item()
        for name, value in outputs[0].items()
        if name in ("energy", "forces") or name in outputs[1]
    }
