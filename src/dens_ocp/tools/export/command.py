"""``dens-ocp export``: a DeNS checkpoint becomes one of stock fairchem."""

from __future__ import annotations

from pathlib import Path

import click

from dens_ocp.errors import DensError
from dens_ocp.settings.recipes import ConfigPath
from dens_ocp.tools.quiet import quiet

_PATH = click.Path(path_type=Path)


@click.command(
    help="Convert a DeNS checkpoint to a checkpoint of stock fairchem-core 1.10.0 (model "
    "equiformer_v2 or escn), which you can use without this package, in OCPCalculator and on "
    "fairchem's command line. The noise head is left out, the force encoding becomes part of the "
    "atom embedding, and normalizers and element references are kept. The exported model is "
    "compared with the original before OUT is written. A config is written next to OUT: "
    "eqv2_dens.yml for eqv2_dens.pt.\n"
    "\n"
    "CHECKPOINT is checkpoint.pt or best_checkpoint.pt of a training run, or one of the authors' "
    "checkpoints. OUT is the file to write.",
    epilog="dens-ocp export checkpoints/RUN/best_checkpoint.pt eqv2_dens.pt",
)
@click.argument("checkpoint", type=_PATH)
@click.argument("out", type=_PATH)
@click.option(
    "--config-yml",
    type=ConfigPath(path_type=Path),
    metavar="FILE",
    help="config that the model was trained with, for example "
    "configs/oc22/equiformer_v2_dens.yml; needed only if the checkpoint has no `model` section "
    "or a wrong one. Its normalizers and element references are used if the checkpoint has none",
)
@click.option(
    "--raw",
    is_flag=True,
    help="export the weights of the last step instead of the averaged weights (EMA) that "
    "evaluation uses; best_checkpoint.pt holds only averaged weights",
)
@click.option("--force", is_flag=True, help="replace OUT and its config")
def command(checkpoint: Path, out: Path, config_yml: Path | None, raw: bool, force: bool) -> None:
    yml = out.with_suffix(".yml")
    if not checkpoint.is_file():
        raise DensError(f"{checkpoint} does not exist; it should be a checkpoint of a DeNS run")
    if out.is_dir() or out.suffix in ("", ".yml"):
        raise DensError(f"{out} is not the name of a checkpoint; write for example {out.stem}.pt")
    if out.exists() and out.samefile(checkpoint):
        raise DensError(f"{out} is the checkpoint itself; give the exported one another name")
    for path in (out, yml):
        if path.exists() and not force:
            raise DensError(
                f"{path} exists already; choose another name, or replace it with --force"
            )
    click.echo(f"reading, writing and comparing {checkpoint} ...")
    with quiet():
        from dens_ocp.tools.export.checkpoint import write_exported
        from dens_ocp.tools.export.source import read_source
        from dens_ocp.tools.export.stock_model import training_section

        source = read_source(checkpoint, config_yml, raw)
        stock, name, differences = write_exported(source, out, yml, checkpoint.name)
    here, before = (sum(p.numel() for p in model.parameters()) for model in (stock, source.model))
    references = f", element references: {' and '.join(source.references)}"
    click.echo(
        f"weights      {source.weights}{f', step {source.step}' if source.step else ''}\n"
        f"model        {name}, {here:,} parameters ({before - here:,} of DeNS left out)\n"
        f"normalizers  {' and '.join(source.normalizers) or 'none'}"
        f"{references if source.references else ''}"
    )
    for name, difference in differences.items():
        click.echo(f"{name:12} largest difference {difference:.1e}, relative (two small slabs)")
    click.echo(f"wrote        {out}\n             {yml}")
    lin_ref = training_section(source.config.get("dataset")).get("lin_ref")
    if lin_ref and not source.references:
        click.echo(
            "note: the model was trained on energies minus a linear reference per element "
            f"(dataset.lin_ref: {lin_ref}). The checkpoint does not hold this reference, so it "
            "predicts energies without it. To add it, give --config-yml with a config that has "
            "dataset.train.transforms.element_references.energy.file"
        )
