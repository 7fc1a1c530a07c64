"""What a config says of training: DeNS, normalizers, model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dens_ocp.tools.doctor.finding import OK, PROBLEM, WARNING, Finding


def check_dens(config: Mapping[str, Any]) -> Iterator[Finding]:
    """The DeNS options, and whether the trainer is ours.

    Raises:
        DensError: a misspelt option, a value out of bounds.
    """
    from dens_ocp.dens.config import parse_dens_config
    from dens_ocp.registration import TRAINER_NAMES
    from dens_ocp.training.trainer import DOTTED_NAME

    trainer = config.get("trainer")
    options = parse_dens_config(config["optim"])
    ours = trainer in (*TRAINER_NAMES, DOTTED_NAME)
    if not ours:
        yield Finding(
            PROBLEM if options is not None else WARNING,
            "trainer",
            f"{trainer} is not dens-ocp's" + (": optim.dens has no effect" if options else ""),
            f"--trainer={DOTTED_NAME}",
        )
    else:
        yield Finding(OK, "trainer", str(trainer))
    if options is None:
        if ours:
            yield Finding(
                PROBLEM, "optim.dens", "missing", "--optim.dens.p=0.5 or --optim.dens.enabled=False"
            )
    elif not options.active:
        yield Finding(
            WARNING, "optim.dens", "no structure is corrupted (enabled, p and r)",
            "--optim.dens.enabled=True --optim.dens.p=0.5 --optim.dens.r=0.5",
        )  # fmt: skip
    elif options.auto:
        yield Finding(
            OK, "optim.dens", "auto: picked from the training set when the run starts "
            "(dens-ocp data suggest CONFIG shows what)"
        )  # fmt: skip
    else:
        sigma = options.sigma if isinstance(options.sigma, float) else (
            f"{options.sigma.low} to {options.sigma.high}"
        )  # fmt: skip
        yield Finding(
            OK,
            "optim.dens",
            f"p {options.p}, r {options.r}, sigma {sigma} Angstrom, coefficient "
            f"{options.coefficient:g}, choice {options.choice}, encode {options.encode}",
        )


def check_normalizers(config: Mapping[str, Any]) -> Iterator[Finding]:
    """Given, read from files, or fitted at the start of the run."""
    transforms = config["dataset"]["train"].get("transforms") or {}
    normalizer = transforms.get("normalizer") or {}
    fitted = (normalizer.get("fit") or {}).get("targets") or ()
    targets = [target for loss in config["loss_functions"] for target in loss]
    for target in targets:
        name = f"normalizer.{target}"
        given = normalizer.get(target)
        if target == "forces" and "energy" in targets and _gradient_forces(config["model"]):
            yield Finding(OK, name, "the scale of the energy, whose gradients the forces are")
        elif isinstance(given, Mapping):
            file = given.get("file")
            if file and not Path(file).is_file():
                yield Finding(PROBLEM, name, f"there is no file {file}", _give(target))
                continue
            values = ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else
                               f"{key} {value}" for key, value in given.items())  # fmt: skip
            yield Finding(OK, name, f"given: {values}")
        elif target in fitted:
            yield Finding(OK, name, "fitted to the training set when a run starts")
        elif normalizer.get("file"):
            there = Path(normalizer["file"]).is_file()
            yield Finding(
                OK if there else PROBLEM,
                name,
                f"{'from' if there else 'there is no file'} {normalizer['file']}",
                "" if there else _give(target),
            )
        else:
            yield Finding(
                PROBLEM if target == "forces" else WARNING,
                name,
                "missing: the loss is in eV" + ("/Angstrom" if target == "forces" else ""),
                _give(target),
            )
    for target, reference in (transforms.get("element_references") or {}).items():
        file = reference.get("file") if isinstance(reference, Mapping) else None
        if file:
            there = Path(file).is_file()
            yield Finding(
                OK if there else PROBLEM,
                f"references.{target}",
                f"{'from' if there else 'there is no file'} {file}",
                "" if there
                else f"--dataset.train.transforms.element_references.{target}.file=PATH",
            )  # fmt: skip


def _gradient_forces(model: Mapping[str, Any]) -> bool:
    from fairchem.core.common.registry import registry

    try:
        cls = registry.get_model_class(model["name"])
    except (RuntimeError, KeyError, ValueError, ImportError):
        return False  # reported by build_model
    return getattr(cls, "gradient_forces", False)


def _give(target: str) -> str:
    option = f"--dataset.train.transforms.normalizer.{target}"
    return f"{option}.mean=0.0 {option}.stdev=VALUE"


def build_model(model: Mapping[str, Any]) -> Any:
    """The model of a config's section ``model``, a torch module.

    Raises:
        DensError: unknown model or option.
    """
    from fairchem.core.common.registry import registry

    from dens_ocp.errors import DensError

    options = dict(model)
    name = options.pop("name")
    try:
        built = registry.get_model_class(name)
    except (RuntimeError, KeyError, ValueError, ImportError) as error:
        (reason, *_) = str(error).strip("'\"").splitlines() or [""]
        raise DensError(
            f"model.name: {name} is not known ({reason}); --model.name=equiformer_v2_dens, "
            "escn_dens or equiformer_dens"
        ) from None
    try:
        return built(**options)
    except TypeError as error:
        raise DensError(
            f"model.name: {name} does not accept its options ({error}); compare the section model "
            "with a recipe in configs/"
        ) from None
