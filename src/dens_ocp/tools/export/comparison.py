"""Compares a DeNS model with its exported form on two small structures."""

from __future__ import annotations

import torch
from ase.build import add_adsorbate, fcc111, molecule
from fairchem.core.datasets import data_list_collater
from fairchem.core.preprocessing import AtomsToGraphs
from torch_geometric.data import Batch

LARGEST_DIFFERENCE = 1e-5
"""Relative. Both models compute the same in float32, but add up the initial embedding in another
order; that rounds differently in the last digit (1e-7), and a deep model carries it on."""


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
        ``energy`` and ``forces``; NaN where an output is not finite.
    """
    outputs = []
    for each in (model.eval(), stock.eval()):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            outputs.append(each(batch.clone()))
    return {
        name: ((outputs[1][name] - value).abs().max() / value.abs().max()).item()
        for name, value in outputs[0].items()
    }
