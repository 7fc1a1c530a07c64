"""The recipes of this project: training and evaluation configs, ablation plans, scripts for SLURM.

They are the folders ``configs`` and ``slurm`` of the repository, and data of the installed package.
A recipe is named by its path in ``configs`` without the suffix (``oc20/2M/escn_dens_20_epochs``), a
script by its path with ``slurm/`` in front.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import yaml

from dens_ocp.errors import DensError, nearest

PREFIX = "recipe:"
"""In front of a recipe's name, where a path of a config is asked for."""

_PACKAGE = Path(__file__).parents[1]
_PARTS = re.compile(r"(^|/)(common[^/]*$|(common|settings|molecules)/)")
"""Files that recipes include and that are none themselves."""


def folder(kind: str = "configs") -> Path:
    """``configs`` or ``slurm``: of the installed package, or of the repository that it runs from.

    Raises:
        DensError: neither is there.
    """
    for place in (_PACKAGE / "recipes" / kind, _PACKAGE.parents[1] / kind):
        if place.is_dir():
            return place
    raise DensError(
        f"the recipes ({kind}) are missing from the package ({_PACKAGE}); install dens-ocp again"
    )


def names() -> list[str]:
    """Of all recipes, sorted; scripts for SLURM are not among them."""
    root = folder()
    found = (path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yml"))
    return sorted(name for name in found if not _PARTS.search(name))


def path_of(name: str) -> Path:
    """The file of a recipe.

    Raises:
        DensError: there is no such recipe.
    """
    name = name.removesuffix(".yml").removeprefix("configs/")
    path = folder() / f"{name}.yml"
    if not path.is_file():
        raise DensError(
            f"there is no recipe {name!r}{nearest(name, names())}; `dens-ocp recipes` lists all "
            "recipes"
        )
    return path


def instead_of(missing: str | Path) -> str | None:
    """What to write for a path that is there in a clone of the repository only
    (``configs/oc22/evaluate.yml``); None for any other path."""
    name = Path(missing).with_suffix("").as_posix().removeprefix("configs/")
    return f"the package has it as {PREFIX}{name}" if name in names() else None


def resolved(word: str) -> str:
    """The path of a config: of a recipe, if ``word`` begins with :data:`PREFIX`, else ``word``.

    Raises:
        DensError: there is no such recipe.
    """
    if not word.startswith(PREFIX):
        return word
    return str(path_of(word.removeprefix(PREFIX)))


class ConfigPath(click.Path):
    """The type of a command's argument: a path, or ``recipe:NAME``."""

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        return super().convert(resolved(str(value)), param, ctx)


@dataclass(frozen=True)
class Recipe:
    """What the first lines of a recipe's file say.

    Attributes:
        name: see the module.
        title: its first sentences.
        facts: by heading: ``GPUs``, ``cost``, ``expected result``, ``source``, ...
    """

    name: str
    title: str
    facts: dict[str, str]


def read(name: str) -> Recipe:
    """Read a recipe's head.

    Raises:
        DensError: there is no such recipe.
    """
    lines = []
    for line in path_of(name).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[1:].removeprefix(" "))
    paragraphs = "\n".join(lines).split("\n\n")
    facts: dict[str, str] = {}
    heading = ""
    for line in "\n".join(paragraphs[1:]).splitlines():
        if fact := re.match(r"(\w[\w ]*?)  +(\S.*)", line):
            heading = fact[1]
            facts[heading] = fact[2]
        elif heading and line.startswith(" " * 10):
            facts[heading] += f" {line.strip()}"
        else:
            heading = ""
    return Recipe(name, " ".join(paragraphs[0].split()), facts)


def files_of(name: str) -> Iterator[tuple[Path, str]]:
    """The file of a recipe or script and those that it includes, each with its place in a copy:
    below ``configs`` or ``slurm``, as here, so that includes are found.

    Args:
        name: of a recipe or plan, ``slurm``, or ``slurm/...``.

    Raises:
        DensError: there is no such file.
    """
    if name == "slurm" or name.startswith("slurm/"):
        root = folder("slurm")
        whole = sorted(path for path in root.rglob("*") if path.is_file())
        chosen = [path for path in whole if name in ("slurm", f"slurm/{path.relative_to(root)}")]
        if not chosen:
            known = [f"slurm/{path.relative_to(root)}" for path in whole]
            raise DensError(f"there is no {name}{nearest(name, known)} (known: {', '.join(known)})")
        yield from ((path, f"slurm/{path.relative_to(root)}") for path in chosen)
        return
    root = folder().resolve()
    waiting, seen = [path_of(name).resolve()], set()
    while waiting:
        path = waiting.pop(0)
        if path in seen:
            continue
        seen.add(path)
        yield path, f"configs/{path.relative_to(root).as_posix()}"
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        bases = content.get("base") if "variants" in content else None  # of a plan
        bases = bases.values() if isinstance(bases, dict) else [bases] if bases else []
        others = [each["config"] if isinstance(each, dict) else each for each in bases]
        others += content.get("includes", [])
        waiting += [(path.parent / each).resolve() for each in others]
