"""Installed packages, as ``pip check`` finds them, and which modules can be imported, seen in a
child process: a broken extension may kill it."""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from importlib.machinery import PathFinder
from typing import NamedTuple

from dens_ocp.launch import new_interpreter
from dens_ocp.tools.doctor.finding import OK, PROBLEM, WARNING, Finding

OURS, HOST = "dens-ocp", "fairchem-core"
BUILT_AGAINST_TORCH = ("torch-scatter", "torch-sparse", "torch-cluster")
_SHOWN = (HOST, "torch", "numpy", "scipy", "ase", "lmdb", "torch-geometric")
_WRONG = re.compile(r"(\S+) \S+ has requirement (.+), but you have (\S+) (\S+)\.$")
_MISSING = re.compile(r"(\S+) \S+ requires (\S+), which is not installed\.$")

_LEFT_OUT = ("torch", "numpy")
"""Newer ones than fairchem-core asks for will do (docs/installation.md)."""

EXTENSIONS = tuple(
    name for name in ("torch_scatter", "torch_sparse") if PathFinder.find_spec(name) is not None
)
"""Those that are installed; of others :mod:`dens_ocp.gaps` serves what fairchem asks for."""

MODULES = (
    "numpy", "scipy.special", "torch", "torch_geometric", *EXTENSIONS,
    "ase", "lmdb", "e3nn", "fairchem.core", "fairchem.core.common.utils:setup_imports",
    "dens_ocp.training.trainer",
)  # fmt: skip
"""In this order: a module needs some of those before it. ``:`` names a function to call."""

_MARK = "dens-ocp-doctor "
_PROGRAM = f"""
import importlib, json, sys, warnings
import dens_ocp
warnings.simplefilter("ignore")
for name in sys.argv[1:]:
    result = dict(error="", missing=None)
    print({_MARK!r} + json.dumps([name, None]), flush=True)
    try:
        module, _, function = name.partition(":")
        module = importlib.import_module(module)
        if function:
            getattr(module, function)()
    except BaseException as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        result = dict(error=type(error).__name__ + ": " + str(error), missing=missing)
    print({_MARK!r} + json.dumps([name, result]), flush=True)
"""


def pip_install(requirement: str) -> str:
    """The command that installs ``requirement`` into this environment."""
    built = requirement.startswith(BUILT_AGAINST_TORCH)
    options = "--force-reinstall --no-build-isolation --no-deps " if built else ""
    return f'{sys.executable} -m pip install {options}"{requirement}"'


def required(name: str) -> str:
    """``name`` with the versions that dens-ocp asks for; else ``name``."""
    try:
        wanted = metadata.requires(OURS) or []
    except metadata.PackageNotFoundError:
        wanted = []
    found = (line for line in wanted if re.match(rf"{re.escape(name)}(?![\w.-])", line))
    return next(found, name).partition(";")[0].strip()


def check_packages() -> Iterator[Finding]:
    """What ``pip check`` says: lines on what dens-ocp and fairchem-core ask for are problems."""
    versions = defaultdict(dict)  # as a set that keeps its order
    for each in metadata.distributions():
        name = re.sub(r"[-_.]+", "-", each.metadata["Name"] or "").lower()
        versions[name][each.version] = None
    yield Finding(OK, "python", f"Python {platform.python_version()} at {sys.executable}")
    if OURS not in versions:
        text = "is not installed in this environment (its files are imported from elsewhere)"
        fix = "-m pip install --no-build-isolation -e . (in the project's folder)"
        yield Finding(PROBLEM, OURS, text, f"{sys.executable} {fix}")
    command = new_interpreter.of_module("pip", "check")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found: dict[str, Finding] = {}
    for line in done.stdout.splitlines():
        asker, name, wanted = "", line, ""
        if wrong := _WRONG.match(line):
            asker, wanted, name = wrong.group(1, 2, 3)
        elif missing := _MISSING.match(line):
            asker, name = missing.groups()
            wanted = required(name)
        if asker == HOST and name in _LEFT_OUT:
            continue
        if asker == OURS or (asker == HOST and name not in found):
            found[name] = Finding(PROBLEM, name, line, pip_install(wanted))
        elif asker not in (OURS, HOST, ""):
            found.setdefault(name, Finding(WARNING, name, line))
    yield from found.values()
    if not done.stdout:
        yield Finding(WARNING, "packages", "pip check printed nothing", "python -m ensurepip")
    elif not found:
        shown = ", ".join(f"{name} {next(iter(versions[name]))}" for name in _SHOWN
                          if name in versions)  # fmt: skip
        yield Finding(OK, "packages", f"pip check finds nothing wrong: {shown}")
    for name, several in sorted(versions.items()):
        if len(several) > 1:
            text = (
                f"is on sys.path in several versions: {', '.join(several)}; Python uses the first"
            )
            fix = "check PYTHONPATH and the user's site-packages: python -m site"
            yield Finding(WARNING, name, text, fix)


class Imported(NamedTuple):
    """Result of an import: why it failed, or ""; the module that was not found, if that was why."""

    error: str = ""
    missing: str | None = None


def try_imports(names: Sequence[str] = MODULES, timeout: float = 300.0) -> dict[str, Imported]:
    """Import ``names`` one after the other in a child process, in a new one after each crash.

    Args:
        names: modules, or ``module:function`` to call a function of one.
        timeout: seconds for all that one child imports.
    """
    found: dict[str, Imported] = {}
    left = list(names)
    while left:
        try:
            child = subprocess.run(
                new_interpreter.of_program(_PROGRAM, *left),
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
                check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            how = f"exit code {child.returncode}"
            if child.returncode < 0:
                how = signal.Signals(-child.returncode).name
            last = (child.stderr.strip().splitlines() or [""])[-1]
            output, end = child.stdout, f"the import kills the process ({how}) {last}".strip()
        except subprocess.TimeoutExpired as expired:
            output, end = (expired.stdout or b"").decode(), f"did not end within {timeout:.0f} s"
        killed = left[0]
        for line in output.splitlines():
            _, marked, fields = line.partition(_MARK)
            if marked:
                killed, result = json.loads(fields)
                if result is not None:
                    found[killed] = Imported(**result)
        left = [name for name in left if name not in found]
        if left:  # the child ended in the middle of an import
            killed = killed if killed in left else left[0]
            found[killed] = Imported(end)
            left.remove(killed)
    return found


def check_imports(found: Mapping[str, Imported]) -> Iterator[Finding]:
    """A line for each module that cannot be imported, one line for all others."""
    blamed: dict[str, str] = {}
    for name, result in found.items():
        if not result.error:
            continue
        reason, package = " ".join(result.error.split()), name.partition(".")[0]
        missing = (result.missing or "").partition(".")[0]
        cause = next((each for each in blamed if each in reason or each == missing), None)
        fix = blamed[cause] if cause else _repair(package, missing, reason)
        blamed[missing or package] = fix
        shown = "fairchem's models" if ":" in name else name
        yield Finding(PROBLEM, f"import {shown}", reason[:300], fix)
    good = [name for name, result in found.items() if not result.error and ":" not in name]
    if good:
        yield Finding(OK, "imports", ", ".join(good))


def _repair(package: str, missing: str, reason: str) -> str:
    if not missing and package in ("fairchem", "dens_ocp"):
        return "repair the packages above, then run dens-ocp doctor again"
    names = {"yaml": "pyyaml", "fairchem": "fairchem-core"}
    module = missing or package
    command = pip_install(required(names.get(module, module.replace("_", "-"))))
    if missing:
        return command
    if package in EXTENSIONS:
        remove = f"{sys.executable} -m pip uninstall {package.replace('_', '-')}"
        return f"{remove} (it is not needed), or build it for this torch: {command} --no-cache-dir"
    return f"{command} --force-reinstall --no-deps"
