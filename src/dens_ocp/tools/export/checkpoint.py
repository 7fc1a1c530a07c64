"""Writes the exported checkpoint and its config, after a comparison with the original."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class Exported:
    """Attributes:
    model: name of the stock model.
    parameters: how many it has.
    left_out: how many parameters of the DeNS model it has not.
    differences: :func:`~dens_ocp.tools.export.comparison.largest_differences`.
    """

    model: str
    parameters: int
    left_out: int
    differences: dict[str, float]


def write_exported(source: Source, out: Path, origin: str) -> Exported:
    """Write ``out`` and, beside it, its config (``.yml``).

    The file is written under another name, read by fairchem's own function, compared with the DeNS
    model, and only then named ``out``.

    Args:
        source: from :func:`~dens_ocp.tools.export.source.read_source`.
        out: the checkpoint's path; an existing file is replaced.
        origin: the original's name, noted in the checkpoint.

    Raises:
        DensError: the exported model predicts something else; nothing is left on the disk.
    """
    model = stock_options(type(source.model), source.options)
    config = stock_config(source.config, model)
    out.parent.mkdir(parents=True, exist_ok=True)
    yml = config_path(out)
    temporary = [file.with_name(f".{file.name}.{os.getpid()}") for file in (out, yml)]
    try:
        torch.save(_checkpoint(source, config, origin), temporary[0])
        temporary[1].write_text(
            _HEADER.format(name=out.name, yml=yml.name) + yaml.safe_dump(config, sort_keys=False)
        )
        stock = load_model_and_weights_from_checkpoint(str(temporary[0]))
        differences = largest_differences(source.model, stock, example_batch())
        if not all(value <= LARGEST_DIFFERENCE for value in differences.values()):
            raise DensError(
                f"{out} was not written: the exported model predicts something else, largest "
                f"relative difference {_shown(differences)}, more than {LARGEST_DIFFERENCE:g}"
            )
        whole_files.replace(temporary[1], yml)
        whole_files.replace(temporary[0], out)
    finally:
        for file in temporary:
            file.unlink(missing_ok=True)
    parameters = _count(stock)
    return Exported(model["name"], parameters, _count(source.model) - parameters, differences)


def config_path(out: Path) -> Path:
    """Where the config of the checkpoint ``out`` is written."""
    return out.with_suffix(".yml")


def _checkpoint(source: Source, config: dict[str, Any], origin: str) -> dict[str, Any]:
    """As fairchem writes ``best_checkpoint.pt``: weights without the state of a training run."""
    return {
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


def _count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _shown(differences: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
