"""Which modules can be imported, seen in a child process: a broken extension may kill it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dens_ocp.tools.doctor.finding import OK, PROBLEM, Finding
from dens_ocp.tools.doctor.versions import pip_install, required

MODULES = (
    "numpy", "scipy.special", "torch", "torch_geometric", "torch_scatter", "torch_sparse",
    "ase", "lmdb", "e3nn", "fairchem.core", "fairchem.core.common.utils:setup_imports",
    "dens_ocp.training.trainer",
)  # fmt: skip
"""In this order: a module needs some of those before it. ``:`` names a function to call."""

_MARK = "dens-ocp-doctor "
_PROGRAM = f"""
import importlib, json, sys, warnings
warnings.simplefilter("ignore")
def say(**fields):
    print({_MARK!r} + json.dumps(fields), flush=True)
for name in sys.argv[1:]:
    say(name=name)
    try:
        module, _, function = name.partition(":")
        module = importlib.import_module(module)
        if function:
            getattr(module, function)()
    except BaseException as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        say(name=name, error=type(error).__name__ + ": " + str(error), missing=missing)
    else:
        say(name=name, version=str(getattr(module, "__version__", "")))
"""


@dataclass(frozen=True)
class Imported:
    """Result of an import.

    Attributes:
        version: ``__version__`` of the module, or "".
        error: why it failed, or "".
        missing: name of the module that was not found, if that was why.
    """

    version: str = ""
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
                [sys.executable, "-c", _PROGRAM, *left],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
                check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            code, output, errors = child.returncode, child.stdout, child.stderr
        except subprocess.TimeoutExpired as expired:
            code, output, errors = None, (expired.stdout or b"").decode(), ""
        begun = None
        for line in output.splitlines():
            _, marked, fields = line.partition(_MARK)
            if not marked:
                continue
            result = json.loads(fields)
            begun = result.pop("name")
            if result:
                found[begun] = Imported(**result)
        left = [name for name in left if name not in found]
        if left:  # the child ended in the middle of an import
            killed = begun if begun in left else left[0]
            found[killed] = Imported(error=_end(code, errors, timeout))
            left.remove(killed)
    return found


def _end(code: int | None, errors: str, timeout: float) -> str:
    if code is None:
        return f"did not end within {timeout:.0f} s"
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    last = errors.strip().splitlines()[-1:] or [""]
    return f"the import kills the process ({how}) {last[0]}".strip()


def check_imports(found: Mapping[str, Imported]) -> Iterator[Finding]:
    """A line for each module that cannot be imported, one line for all others."""
    blamed: dict[str, str] = {}
    for name, result in found.items():
        if not result.error:
            continue
        reason = " ".join(result.error.split())
        shown = name.partition(":")[0] if ":" not in name else "fairchem's models"
        missing = (result.missing or "").partition(".")[0]
        cause = next((each for each in blamed if each in reason or each == missing), None)
        fix = blamed[cause] if cause else _repair(name, missing, reason)
        blamed[missing or name.partition(".")[0]] = fix
        yield Finding(PROBLEM, f"import {shown}", reason[:300], fix)
    good = [name for name, result in found.items() if not result.error and ":" not in name]
    if good:
        yield Finding(OK, "imports", ", ".join(good))


def _repair(name: str, missing: str, reason: str) -> str:
    if missing:
        return pip_install(required(_distribution(missing)))
    package = name.partition(".")[0].partition(":")[0]
    if package in ("fairchem", "dens_ocp"):
        if "scipy" in reason or "sph_harm" in reason:
            return pip_install(required("scipy"))
        return "repair the packages above, then run dens-ocp doctor again"
    command = pip_install(required(_distribution(package)))
    if package in ("torch_scatter", "torch_sparse"):
        return f"{command} --no-cache-dir (it has to be built for this torch)"
    return f"{command} --force-reinstall --no-deps"


def _distribution(module: str) -> str:
    """Name of the distribution that brings a module."""
    return {"yaml": "pyyaml", "fairchem": "fairchem-core", "pkg_resources": "setuptools"}.get(
        module, module.replace("_", "-")
    )
