"""GPUs that a plan can be made for: figures of their data sheets."""

from __future__ import annotations

from typing import NamedTuple


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


GPUS = {
    "v100": Gpu("V100 32 GB (NVLink)", 34.1e9, 15.7e12, 0.90e12, 128e9, 12.5e9),
    "a100": Gpu("A100 80 GB (SXM)", 85.9e9, 19.5e12, 2.04e12, 255e9, 25e9),
    "h100": Gpu("H100 80 GB (SXM)", 85.5e9, 66.9e12, 3.35e12, 380e9, 50e9),
    "h200": Gpu("H200 141 GB (SXM)", 150.7e9, 66.9e12, 4.80e12, 380e9, 50e9),
}
"""By the names of ``--gpu``."""

CPU = Gpu("CPU process", None, 0.0, 0.0, 5e9, 1.25e9)
"""``--gpu cpu``: its time is measured; 10 Gbit/s Ethernet between machines, gloo sums."""

PAPER = "v100"
"""The GPU whose hours the paper gives."""


def speed_range(gpu: Gpu, reference: Gpu) -> tuple[float, float]:
    """How much faster ``gpu`` is than ``reference``: lowest and highest of two bounds.

    Work bound by arithmetic gains the ratio of peaks, work bound by memory the ratio of
    bandwidths. EquiformerV2 is a mix of both. Tensor cores are left out: the paper's runs, in mixed
    precision, reach 5 % of a V100's (6.6 of 125 TFLOP/s), so they are not what limits.
    """
    ratios = (gpu.flops / reference.flops, gpu.bandwidth / reference.bandwidth)
    return min(ratios), max(ratios)
