"""``dens-ocp export``: a DeNS checkpoint becomes one of stock fairchem."""

from __future__ import annotations

import argparse
from pathlib import Path

from dens_ocp.errors import DensError
from dens_ocp.tools.export.checkpoint import config_path, write_exported
from dens_ocp.tools.export.source import Source, read_source
from dens_ocp.tools.export.stock_config import training_section
from dens_ocp.tools.quiet import quiet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "A DeNS checkpoint becomes one of stock fairchem-core 1.10.0 (model equiformer_v2 or\n"
        "escn), which is used without this package, in OCPCalculator and on fairchem's command\n"
        "line. The noise head is left out, the force encoding becomes part of the atom\n"
        "embedding, normalizers and element references are kept. Beside OUT a config is written.\n"
        "Before that the exported model is compared with the original.\n\n"
        "  dens-ocp export checkpoints/RUN/best_checkpoint.pt eqv2_dens.pt"
    )
    parser.add_argument(
        "checkpoint",
        type=Path,
        help="checkpoint.pt or best_checkpoint.pt of a training run, or one of the authors'",
    )
    parser.add_argument(
        "out", type=Path, help="file to write, for example eqv2_dens.pt; its config: eqv2_dens.yml"
    )
    parser.add_argument(
        "--config-yml",
        type=Path,
        metavar="FILE",
        help="config the model was trained with; needed only when the checkpoint has no `model` "
        "section or a wrong one, for example configs/oc22/equiformer_v2_dens.yml. Its normalizers "
        "and element references are taken where the checkpoint has none",
    )
    parser.add_argument(
        "--raw",
        action="store_true",
        help="weights of the last step, not the averaged ones (EMA) that evaluation uses; "
        "best_checkpoint.pt holds averaged ones only",
    )
    parser.add_argument("--force", action="store_true", help="replace OUT and its config")


def run(args: argparse.Namespace) -> int:
    _check_paths(args)
    print(f"reading, writing and comparing {args.checkpoint} ...", flush=True)
    with quiet():
        source = read_source(args.checkpoint, args.config_yml, args.raw)
        exported = write_exported(source, args.out, args.checkpoint.name)
    targets = " and ".join(source.normalizers) or "none"
    references = f", element references: {' and '.join(source.references)}"
    print(
        f"weights      {source.weights}"
        + (f", step {source.step}" if source.step else "")
        + f"\nmodel        {exported.model}, {exported.parameters:,} parameters "
        f"({exported.left_out:,} of DeNS left out)"
        f"\nnormalizers  {targets}{references if source.references else ''}"
    )
    for name, difference in exported.differences.items():
        print(f"{name:12} largest difference {difference:.1e}, relative (two small slabs)")
    print(f"wrote        {args.out}\n             {config_path(args.out)}")
    _note_references(source)
    return 0


def _check_paths(args: argparse.Namespace) -> None:
    checkpoint, out = args.checkpoint, args.out
    if not checkpoint.is_file():
        raise DensError(f"{checkpoint} does not exist; it should be a checkpoint of a DeNS run")
    if out.is_dir() or out.suffix in ("", ".yml"):
        raise DensError(f"{out} is not the name of a checkpoint; write for example {out.stem}.pt")
    if out.exists() and out.samefile(checkpoint):
        raise DensError(f"{out} is the checkpoint itself; give the exported one another name")
    for path in (out, config_path(out)):
        if path.exists() and not args.force:
            raise DensError(f"{path} exists already; choose another name, or --force to replace it")


def _note_references(source: Source) -> None:
    section = training_section(source.config.get("dataset"))
    if section.get("lin_ref") and not source.references:
        print(
            "note: the model was trained on energies less a linear reference per element "
            f"(dataset.lin_ref: {section['lin_ref']}), which the checkpoint does not hold: it "
            "predicts energies without them. To add them give --config-yml a config with "
            "dataset.train.transforms.element_references.energy.file"
        )
