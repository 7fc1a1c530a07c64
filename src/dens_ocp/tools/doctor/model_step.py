"""One forward and one backward of the config's model on records of the training set."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from dens_ocp.tools.doctor.finding import OK, PROBLEM, WARNING, Finding

_RECORDS = 2


def check_step(model: Any, records: list[Any], where: str) -> Iterator[Finding]:
    """Findings on a forward and backward of the smallest records, as in training mode.

    Args:
        model: of ``doctor.training.build_model``.
        records: of the training set, put right.
        where: its config section.

    Raises:
        DensError: the records do not go together.
    """
    import torch
    from fairchem.core.datasets.lmdb_dataset import data_list_collater

    from dens_ocp.data.opened_data import is_periodic
    from dens_ocp.data.records.collation import CheckingCollater

    chosen = sorted(records, key=lambda record: record.pos.shape[0])[:_RECORDS]
    collater = CheckingCollater(data_list_collater, where, is_periodic(model))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    start = time.perf_counter()
    batch = collater(chosen, otf_graph=getattr(model, "otf_graph", True)).to(device)
    model = model.to(device).train()
    outputs = dict(_tensors(model(batch), ""))
    loss = sum(value.float().square().mean() for value in outputs.values())
    loss.backward()
    seconds = time.perf_counter() - start
    atoms = f"{len(chosen)} records ({batch.pos.shape[0]} atoms)"
    bad = [name for name, value in outputs.items() if not torch.isfinite(value).all()]
    gradients = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all()
    ]
    if bad or gradients:
        what = f"outputs {', '.join(bad)}" if bad else f"gradients of {', '.join(gradients[:3])}"
        yield Finding(
            PROBLEM, "step", f"forward and backward of {atoms}: {what} are not finite",
            "two atoms at one place, or options of the model; compare with a recipe in configs/",
        )  # fmt: skip
        return
    missing = [name for name in ("energy", "forces") if not any(name in each for each in outputs)]
    yield Finding(
        WARNING if missing else OK,
        "step",
        f"forward and backward of {atoms} on {device}: {', '.join(outputs)}, {seconds:.1f} s"
        + (f"; no {' and no '.join(missing)}" if missing else ""),
        "look at model.regress_forces and at its heads" if missing else "",
    )


def _tensors(outputs: Mapping[str, Any], before: str) -> Iterator[tuple[str, Any]]:
    """Outputs by name; those of a hydra model's heads as ``head.name``."""
    for name, value in outputs.items():
        if isinstance(value, Mapping):
            yield from _tensors(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
