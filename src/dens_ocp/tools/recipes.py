"""``dens-ocp recipes``: what recipes there are, and copies of them to edit."""

from __future__ import annotations

import os
import re
import shutil
import textwrap
from pathlib import Path

import click

from dens_ocp.errors import DensError

_MD17 = re.compile(r"^md17/[a-z_]+/")
_SHOWN = ("GPUs", "cost", "expected result", "memory", "parameters")


@click.group(
    invoke_without_command=True,
    epilog="\b\nexamples:\n"
    "  dens-ocp recipes list 2M\n"
    "  dens-ocp recipes copy oc20/2M/equiformer_v2_dens_12_epochs mine\n"
    "  fairchem main --mode train --config-yml recipe:oc20/2M/equiformer_v2_dens_12_epochs",
)
@click.pass_context
def command(context: click.Context) -> None:
    """List and copy the recipes that come with the package: training and evaluation configs,
    ablation plans and SLURM scripts. Wherever a command takes a config, you can write recipe:NAME.
    """
    if context.invoked_subcommand is None:
        context.invoke(list_)


@command.command("list")
@click.argument("words", nargs=-1)
def list_(words: tuple[str, ...] = ()) -> None:
    """List the recipes with model, data, cost and expected result.

    WORDS: list only recipes that have all of these words in their name or first line.
    """
    from dens_ocp.settings import recipes

    shown = 0
    for name in recipes.names():
        recipe = recipes.read(name)
        if not all(word.lower() in f"{name} {recipe.title}".lower() for word in words):
            continue
        if not words and _MD17.match(name) and not name.startswith("md17/aspirin/"):
            continue  # eight molecules, the same recipes
        shown += 1
        click.echo(name if words else _MD17.sub("md17/MOLECULE/", name))
        click.echo(_indented(recipe.title, "    ", "    "))
        for fact in _SHOWN:
            if fact in recipe.facts:
                click.echo(_indented(recipe.facts[fact], f"    {fact:<17}", " " * 21))
    if not shown:
        raise DensError(
            f"no recipe has {' and '.join(words)}; `dens-ocp recipes` lists all recipes"
        )
    click.echo(
        "\nrun one:   fairchem main --mode train --config-yml recipe:NAME\n"
        "edit one:  dens-ocp recipes copy NAME [FOLDER]\n"
        "scripts for SLURM:  dens-ocp recipes copy slurm [FOLDER]"
    )


def _indented(text: str, first: str, then: str) -> str:
    return textwrap.fill(text, 100, initial_indent=first, subsequent_indent=then)


@command.command()
@click.argument("name")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=".")
def copy(name: str, folder: Path) -> None:
    """Copy a recipe, and all files that it includes, so that you can edit it.

    NAME: a recipe of the list, or slurm for the scripts. FOLDER: where the folder configs or slurm
    is made (default: the working directory).
    """
    from dens_ocp.checkpoints.run_folder import check_writable
    from dens_ocp.settings import recipes

    files = [(source, folder / place) for source, place in recipes.files_of(name)]
    check_writable(folder, "FOLDER", "the copies are written there")
    for source, target in files:
        if target.exists() and target.read_bytes() != source.read_bytes():
            raise DensError(
                f"{target} exists already and differs from the recipe; give another FOLDER, or "
                "remove the file"
            )
    for source, target in files:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}")
        shutil.copy(source, temporary)
        os.replace(temporary, target)
        click.echo(target)
    if name.startswith("ablations/"):
        click.echo(f"next: dens-ocp ablate {files[0][1]}")
    elif not name.startswith("slurm") and not name.endswith("evaluate"):
        click.echo(f"next: dens-ocp doctor {files[0][1]}")
