"""Which systems belong to which split; catalysts and adsorbates of the out-of-domain splits are
in no other one."""

from __future__ import annotations

import numpy as np

from dens_ocp.tools.demo.surfaces import FACETS, Catalyst
from dens_ocp.tools.demo.trajectories import System

CATALYSTS = (
    Catalyst("Cu"),
    Catalyst("Ag"),
    Catalyst("Ni"),
    Catalyst("Pd"),
    Catalyst("Pt"),
    Catalyst("Al"),
    Catalyst("Cu", "Au"),
    Catalyst("Ag", "Au", share=2),
    Catalyst("Ni", "Al"),
    Catalyst("Pt", "Ni"),
)
OOD_CATALYSTS = (
    Catalyst("Au"),
    Catalyst("Cu", "Pd"),
    Catalyst("Cu", "Pt", share=2),
    Catalyst("Ag", "Pd"),
)
ADSORBATES = ("H", "O", "C", "CO", "OH", "NH")
OOD_ADSORBATES = ("N", "NO", "CH")

DOMAINS = {
    "train": (CATALYSTS, ADSORBATES),
    "val_id": (CATALYSTS, ADSORBATES),
    "val_ood_ads": (CATALYSTS, OOD_ADSORBATES),
    "val_ood_cat": (OOD_CATALYSTS, ADSORBATES),
    "val_ood_both": (OOD_CATALYSTS, OOD_ADSORBATES),
}
"""Catalysts and adsorbates of each split. Every element of an out-of-domain split is in train."""

VALIDATION_SPLITS = tuple(name for name in DOMAINS if name != "train")
BOARD_SPLITS = {name.removeprefix("val_"): name for name in VALIDATION_SPLITS}
"""Validation splits by the names of the leaderboard's."""


def candidates(split: str, seed: int) -> list[System]:
    """Systems of a split in the order in which they are tried; each pair of catalyst and adsorbate
    comes before any comes twice."""
    catalysts, adsorbates = DOMAINS[split]
    number = list(DOMAINS).index(split)
    rng = np.random.default_rng([seed, number])
    pairs = [(catalyst, adsorbate) for catalyst in catalysts for adsorbate in adsorbates]
    systems = []
    for _ in range(100):
        for index in rng.permutation(len(pairs)):
            facet = FACETS[rng.integers(len(FACETS))]
            sid = (number + 1) * 100_000 + len(systems)
            systems.append(System(sid, pairs[index][0], facet, pairs[index][1]))
        if len(systems) >= 1000:
            break
    return systems
