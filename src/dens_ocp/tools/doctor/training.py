"""What a config says of training: DeNS, normalizers, model; and one step of the model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dens_ocp.tools.config_model import has_gradient_forces
from dens_ocp.tools.doctor import archives
from dens_ocp.tools.doctor.finding import OK, PROBLEM, WARNING, Finding


def check_dens(config: Mapping[str, Any]) -> Iterator[Finding]:
    """The DeNS options, and whether the trainer is ours.

    Raises:
        DensError: a misspelt option, a value out of bounds.
    """
    from dens_ocp.dens.config import parse_dens_config
    from dens_ocp.registration import TRAINER_NAMES
    from dens_ocp.training.trainer import DOTTED_NAME

    check, trainer = "optim.dens", config.get("trainer")
    options = parse_dens_config(config["optim"])
    ours = trainer in (*TRAINER_NAMES, DOTTED_NAME)
    if ours:
        yield Finding(OK, "trainer", str(trainer))
    else:
        text = f"{trainer} is not the trainer of dens-ocp" + (
            ", so optim.dens has no effect" if options else ""
        )
        status = WARNING if options is None else PROBLEM
        yield Finding(status, "trainer", text, f"--trainer={DOTTED_NAME}")
    if options is None:
        if ours:
            fix = "--optim.dens.p=0.5 or --optim.dens.enabled=False"
            yield Finding(PROBLEM, check, "missing", fix)
    elif not options.active:
        fix = "--optim.dens.enabled=True --optim.dens.p=0.5 --optim.dens.r=0.5"
        yield Finding(WARNING, check, "no structure is corrupted (enabled, p and r)", fix)
    elif options.auto:
        text = "auto: picked from the training set when the run starts"
        yield Finding(OK, check, f"{text} (`dens-ocp data suggest CONFIG` shows the values)")
    else:
        yield Finding(OK, check, options.in_words)


def check_normalizers(config: Mapping[str, Any]) -> Iterator[Finding]:
    """Given, read from files, or fitted at the start of the run."""
    transforms = config["dataset"]["train"].get("transforms") or {}
    normalizer = transforms.get("normalizer") or {}
    fitted = (normalizer.get("fit") or {}).get("targets") or ()
    targets = [target for loss in config["loss_functions"] for target in loss]
    for target in targets:
        name, given = f"normalizer.{target}", normalizer.get(target)
        option = f"--dataset.train.transforms.normalizer.{target}"
        fix = f"{option}.mean=0.0 {option}.stdev=VALUE"
        own = given.get("file") if isinstance(given, Mapping) else None
        if target == "forces" and "energy" in targets and has_gradient_forces(config["model"]):
            yield Finding(
                OK,
                name,
                ("the scale of the energy is used, because the forces are gradients of the energy"),
            )
        elif own and not Path(own).is_file():
            yield _file(name, own, fix)
        elif isinstance(given, Mapping):
            values = (f"{value:.4g}" if isinstance(value, float) else str(value)
                      for value in given.values())  # fmt: skip
            shown = ", ".join(f"{key} {value}" for key, value in zip(given, values, strict=True))
            yield Finding(OK, name, f"given: {shown}")
        elif target in fitted:
            yield Finding(OK, name, "fitted to the training set when the run starts")
        elif normalizer.get("file"):
            yield _file(name, normalizer["file"], fix)
        else:
            status, unit = (PROBLEM, "eV/Angstrom") if target == "forces" else (WARNING, "eV")
            yield Finding(status, name, f"missing, so the loss is in {unit}", fix)
    for target, reference in (transforms.get("element_references") or {}).items():
        file = reference.get("file") if isinstance(reference, Mapping) else None
        if file:
            option = f"--dataset.train.transforms.element_references.{target}.file=PATH"
            yield _file(f"references.{target}", file, option)


def _file(check: str, path: str, fix: str) -> Finding:
    if Path(path).is_file():
        return Finding(OK, check, f"from {path}")
    advice = archives.to_download(path)
    return Finding(
        PROBLEM, check, f"the file {path} does not exist", f"{advice}; or {fix}" if advice else fix
    )


def check_step(model: Any, records: list[Any], where: str) -> Iterator[Finding]:
    """Findings on a forward and backward of the two smallest records, as in training mode.

    Args:
        model: of ``config_model.build_model``.
        records: of the training set, put right.
        where: its config section.

    Raises:
        DensError: the records do not go together.
    """
    import torch
    from fairchem.core.datasets.lmdb_dataset import data_list_collater

    from dens_ocp.data.opened_data import is_periodic
    from dens_ocp.data.records.collation import CheckingCollater

    chosen = sorted(records, key=lambda record: record.pos.shape[0])[:2]
    collater = CheckingCollater(data_list_collater, where, is_periodic(model))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    start = time.perf_counter()
    batch = collater(chosen, otf_graph=getattr(model, "otf_graph", True)).to(device)
    model = model.to(device).train()
    outputs = dict(_tensors(model(batch)))
    sum(value.float().square().mean() for value in outputs.values()).backward()
    seconds = time.perf_counter() - start
    atoms = f"forward and backward of {len(chosen)} records ({batch.pos.shape[0]} atoms)"
    gradients = {name: each.grad for name, each in model.named_parameters()}
    for what, values in (("outputs", outputs), ("gradients of", gradients)):
        bad = [name for name, value in values.items()
               if value is not None and not torch.isfinite(value).all()]  # fmt: skip
        if bad:
            text = f"{atoms}: {what} {', '.join(bad[:3])} are not finite"
            fix = (
                "possible causes are two atoms at the same position and wrong model options; "
                "compare with a recipe in configs/"
            )
            yield Finding(PROBLEM, "step", text, fix)
            return
    text = f"{atoms} on {device}: {', '.join(outputs)}, {seconds:.1f} s"
    missing = [name for name in ("energy", "forces") if not any(name in each for each in outputs)]
    if missing:
        fix = "check model.regress_forces and the model's heads"
        yield Finding(WARNING, "step", f"{text}; no {' and no '.join(missing)}", fix)
    else:
        yield Finding(OK, "step", text)


def _tensors(outputs: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Outputs by name; those of a hydra model's heads as ``head.name``."""
    for name, value in outputs.items():
        if isinstance(value, Mapping):
            yield from _tensors(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
