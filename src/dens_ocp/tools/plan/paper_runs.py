"""GPUs of a plan, by their data sheets, and the paper's runs (arXiv 2403.09549): what they cost on
V100s, and what the model of cost makes of them. Two calibrate it, the others test it."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any, NamedTuple


class Gpu(NamedTuple):
    """One kind of GPU.

    Attributes:
        name: for people.
        memory: bytes, as nvidia-smi shows them (32510, 81920, 81559, 143771 MiB); None: no limit.
        flops: peak of float32 without tensor cores, FLOP/s (torch 2.4 does not use TF32 unless
            told to).
        bandwidth: of its memory, bytes/s.
        intra_node: all-reduce bandwidth of a GPU within a node, bytes/s: about 85 % of NVLink in
            one direction.
        inter_node: bandwidth of a node's network, bytes/s: InfiniBand usual with this GPU (EDR
            100, HDR 200, NDR 400 Gbit/s; one adapter).
    """

    name: str
    memory: float | None
    flops: float
    bandwidth: float
    intra_node: float
    inter_node: float


V100 = Gpu("V100 32 GB (NVLink)", 34.1e9, 15.7e12, 0.90e12, 128e9, 12.5e9)
"""The GPU whose hours the paper gives."""

GPUS = {
    "v100": V100,
    "a100": Gpu("A100 80 GB (SXM)", 85.9e9, 19.5e12, 2.04e12, 255e9, 25e9),
    "h100": Gpu("H100 80 GB (SXM)", 85.5e9, 66.9e12, 3.35e12, 380e9, 50e9),
    "h200": Gpu("H200 141 GB (SXM)", 150.7e9, 66.9e12, 4.80e12, 380e9, 50e9),
    # its time is measured; 10 Gbit/s Ethernet between machines, gloo sums
    "cpu": Gpu("CPU process", None, 0.0, 0.0, 5e9, 1.25e9),
}
"""By the names of ``--gpu``."""

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


_EQ, _2M = "equiformer_v2_dens", "configs/oc20/2M/equiformer_v2_dens_{}_epochs.yml"
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
    PaperRun(_ESCN_RECIPE, "escn_dens", 12, 2, 2_000_000, 20, 16, 6, 3495 / 1.9, 1.003e12, "tests"),
    PaperRun(_ALL_MD, _EQ, 20, 3, _OC20_ALL_MD, 2, 128, 4, 88_982, 2.801e12, "tests"),
)
"""Hours: Table 1(a) (2M), Appendix C.1 (OC22), Section 4.1.1 (eSCN), Appendix B.1 (All+MD).
Frames of All, MD and OC22: the counts of the published data sets' training splits."""

RATE = fmean(run.rate for run in RUNS if run.role == "calibrates")
"""FLOP/s of a V100, of which the model of cost is made."""

BAND = 0.9 * min(RATE / run.rate for run in RUNS), max(RATE / run.rate for run in RUNS)
"""Range of truth by prediction on the paper's own hardware, from all runs. 10 % are allowed below
the cheapest run, since each run is one measurement."""


def matching(config: Mapping[str, Any]) -> PaperRun | None:
    """The paper's run with this model, depth, order and number of epochs."""
    model, epochs = config["model"], config["optim"].get("max_epochs")
    mmax = (model.get("mmax_list") or [None])[0]
    key = (model.get("name"), model.get("num_layers"), mmax, epochs)
    same = (run for run in RUNS if key == (run.model, run.layers, run.mmax, run.epochs))
    return next(same, None)
