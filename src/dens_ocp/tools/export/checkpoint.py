"""Writes the exported checkpoint and its config, after a comparison with the original."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import yaml
from fairchem.core.common.utils import load_model_and_weights_from_checkpoint

import dens_ocp
from dens_ocp import whole_files
from dens_ocp.errors import DensError
from dens_ocp.tools.export.comparison import LARGEST_DIFFERENCE, example_batch, largest_differences
from dens_ocp.tools.export.source import Source
from dens_ocp.tools.export.stock_config import checkpoint_config, stock_config
from dens_ocp.tools.export.stock_model import stock_options, stock_state

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
        :func:`~dens_ocp.tools.export.comparison.largest_differences` says.

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
                f"{out} was not written: the exported model predicts something else, largest "
                f"relative difference {shown}, more than {LARGEST_DIFFERENCE:g}"
            )
        whole_files.replace(temporary[1], yml)
        whole_files.replace(temporary[0], out)
    finally:
        for file in temporary:
            file.unlink(missing_ok=True)
    return stock, model["name"], differences
