"""Installed versions against the requirements of dens-ocp and fairchem-core.

The requirements are read from the installed distributions, so pyproject.toml is the only place
that holds a version.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from dens_ocp.tools.doctor.finding import OK, PROBLEM, WARNING, Finding

OURS, HOST = "dens-ocp", "fairchem-core"
_BUILT_AGAINST_TORCH = ("torch-scatter", "torch-sparse", "torch-cluster")
_SHOWN = ("torch", "numpy", "scipy", "ase", "lmdb", "torch-geometric")


def pip_install(*requirements: str) -> str:
    """The command that installs ``requirements`` into this environment."""
    first = canonicalize_name(Requirement(requirements[0]).name)
    options = (
        "--force-reinstall --no-build-isolation --no-deps " if first in _BUILT_AGAINST_TORCH else ""
    )
    names = " ".join(f'"{each}"' for each in requirements)
    return f"{sys.executable} -m pip install {options}{names}"


def requirements_of(name: str) -> list[Requirement]:
    """What the installed distribution ``name`` asks for here, extras left out."""
    wanted = [Requirement(line) for line in distribution(name).requires or ()]
    return [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]


def required(name: str) -> str:
    """``name`` with the versions that dens-ocp asks for; else ``name``."""
    try:
        for each in requirements_of(OURS):
            if canonicalize_name(each.name) == canonicalize_name(name):
                return f"{each.name}{each.specifier}"
    except PackageNotFoundError:
        pass
    return name


def check_python() -> Iterator[Finding]:
    """The running Python against ``requires-python``."""
    try:
        asked = distribution(OURS).metadata["Requires-Python"] or ""
    except PackageNotFoundError:
        return
    version = platform.python_version()
    text = f"Python {version} at {sys.executable} (dens-ocp asks for {asked})"
    if SpecifierSet(asked).contains(version, prereleases=True):
        yield Finding(OK, "python", text)
    else:
        yield Finding(
            PROBLEM, "python", text, "make distclean && make setup PYTHON=/path/to/python3.11"
        )


def check_packages() -> Iterator[Finding]:
    """A line for each package that is missing or of a wrong version, one line for all others."""
    try:
        distribution(OURS)
    except PackageNotFoundError:
        yield Finding(
            PROBLEM,
            OURS,
            "is not installed in this environment (its files are imported from elsewhere)",
            f"{sys.executable} -m pip install --no-build-isolation -e . (in the project's folder)",
        )
    good, shown = 0, {}
    for name, (specifier, askers) in sorted(_all_requirements().items()):
        wanted = f"{name}{specifier}"
        try:
            version = distribution(name).version
        except PackageNotFoundError:
            yield Finding(PROBLEM, name, f"missing ({askers}: {wanted})", pip_install(wanted))
            continue
        if not specifier.contains(version, prereleases=True):
            yield Finding(
                PROBLEM,
                name,
                f"{version} is installed, {askers}: {wanted}",
                pip_install(wanted),
            )
            continue
        good += 1
        shown[name] = version
    known = ", ".join(f"{name} {shown[name]}" for name in (HOST, *_SHOWN) if name in shown)
    yield Finding(OK, "packages", f"{good} of the right version: {known}")
    yield from _installed_twice(set(_all_requirements()))


def _all_requirements() -> dict[str, tuple[SpecifierSet, str]]:
    """Versions asked for, and by whom, by name."""
    found: dict[str, tuple[SpecifierSet, str]] = {}
    for asker in (OURS, HOST):
        try:
            wanted = requirements_of(asker)
        except PackageNotFoundError:
            continue
        for each in wanted:
            name = canonicalize_name(each.name)
            specifier, askers = found.get(name, (SpecifierSet(), ""))
            askers = f"{askers} and {asker}" if askers else f"asked for by {asker}"
            found[name] = (specifier & each.specifier, askers)
    return found


def _installed_twice(names: set[str]) -> Iterator[Finding]:
    places: dict[str, list[Distribution]] = {}
    for each in distributions():
        name = canonicalize_name(each.metadata["Name"] or "")
        if name in names:
            places.setdefault(name, []).append(each)
    for name, found in sorted(places.items()):
        versions = list(dict.fromkeys(each.version for each in found))
        if len(versions) > 1:
            yield Finding(
                WARNING,
                name,
                f"is on sys.path in several versions: {', '.join(versions)}; the first is used",
                "look at PYTHONPATH and the user's site-packages: python -m site",
            )
