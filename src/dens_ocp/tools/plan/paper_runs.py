"""The paper's runs (arXiv 2403.09549): what they cost on V100s, and what the model of cost makes
of them. Two calibrate it, the others test it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

ATOMS = 77.81317
"""Mean atoms of a structure: fairchem's ``avg_num_nodes`` of OC20."""

LOOSE_DEGREE = 23.395238876342773
"""Mean edges of an atom at 20 neighbours with ties (``enforce_max_neighbors_strictly: False``):
fairchem's ``avg_degree``."""


class PaperRun(NamedTuple):
    """One training run, in mixed precision: the authors' scripts say ``--amp``.

    Attributes:
        recipe: our config, whose header says where the hours stand.
        model, layers, mmax: what identifies it, with ``epochs``.
        structures: of the training set.
        epochs, gpus, batch: batch is structures per GPU.
        hours: V100 GPU-hours, all of the run.
        flops: forward and backward of a structure of :data:`ATOMS` atoms, counted by
            ``plan.measure`` at two depths and extended to all blocks.
        role: calibrates or tests.
    """

    recipe: str
    model: str
    layers: int
    mmax: int
    structures: int
    epochs: int
    gpus: int
    batch: int
    hours: float
    flops: float
    role: str

    @property
    def seconds(self) -> float:
        """V100 seconds of a structure."""
        return self.hours * 3600 / (self.structures * self.epochs)

    @property
    def rate(self) -> float:
        """FLOP/s of a V100 that the paper's hours mean."""
        return self.flops / self.seconds


_EQ, _ESCN = "equiformer_v2_dens", "escn_dens"
_2M = "configs/oc20/2M/equiformer_v2_dens_{}_epochs.yml"
_OC22_RECIPE = "configs/oc22/equiformer_v2_dens.yml"
_ESCN_RECIPE = "configs/oc20/2M/escn_dens_20_epochs.yml"
_ALL_MD = "configs/oc20/all_md/equiformer_v2_dens.yml"
_OC20_ALL_MD = 133_934_018 + 38_315_405
_OC22 = 8_225_293

RUNS = (
    PaperRun(_2M.format(12), _EQ, 12, 2, 2_000_000, 12, 16, 4, 1501, 1.491e12, "calibrates"),
    PaperRun(_OC22_RECIPE, _EQ, 18, 2, _OC22, 6, 32, 4, 5082, 2.463e12, "calibrates"),
    PaperRun(_2M.format(20), _EQ, 12, 2, 2_000_000, 20, 32, 4, 2501, 1.491e12, "tests"),
    PaperRun(_2M.format(30), _EQ, 12, 2, 2_000_000, 30, 32, 4, 3752, 1.491e12, "tests"),
    PaperRun(_ESCN_RECIPE, _ESCN, 12, 2, 2_000_000, 20, 16, 6, 3495 / 1.9, 1.003e12, "tests"),
    PaperRun(_ALL_MD, _EQ, 20, 3, _OC20_ALL_MD, 2, 128, 4, 88_982, 2.801e12, "tests"),
)
"""Hours: Table 1(a) (2M), Appendix C.1 (OC22), Section 4.1.1 (eSCN), Appendix B.1 (All+MD).
Frames of All, MD and OC22: the counts of the published data sets' training splits."""

ALL_MD_THROUGHPUT = 1.8
"""Structures per GPU-second of All+MD in the paper's Table 2, which contradicts its GPU-hours
(88,982 for 2 epochs are 1.08 per GPU-second)."""


def rate() -> float:
    """FLOP/s of a V100: the mean of the runs that calibrate."""
    rates = [run.rate for run in RUNS if run.role == "calibrates"]
    return sum(rates) / len(rates)


def paper_over_model(run: PaperRun) -> float:
    """The paper's hours by the model's: above 1 the run took longer than the model says."""
    return rate() / run.rate


def band() -> tuple[float, float]:
    """Range of truth by prediction on the paper's own hardware, from all runs.

    10 % are allowed below the cheapest run, since each run is one measurement.
    """
    ratios = [paper_over_model(run) for run in RUNS]
    return 0.9 * min(ratios), max(ratios)


def matching(config: Mapping[str, Any]) -> PaperRun | None:
    """The paper's run with this model, depth, order and number of epochs."""
    model, epochs = config["model"], config["optim"].get("max_epochs")
    mmax = (model.get("mmax_list") or [None])[0]
    key = (model.get("name"), model.get("num_layers"), mmax, epochs)
    for run in RUNS:
        if key == (run.model, run.layers, run.mmax, run.epochs):
            return run
    return None
