"""``python -m benchmarks``: measure, then write report, JSON and pictures."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported

import torch
from tqdm import tqdm

from benchmarks import (
    fresh_process,
    loading,
    machine,
    memory,
    plot,
    products,
    profiling,
    report,
    scaling,
    variants,
)
from benchmarks.cases import Case
from benchmarks.measure import Settings, timed
from dens_ocp.tools.quiet import quiet

CASES = (
    Case("eqv2", "3", "oc20"),
    Case("eqv2", "12", "oc20"),
    Case("eqv2", "12", "free"),
    Case("eqv2", "3", "stress"),
    Case("escn", "3", "oc20"),
    Case("escn", "12", "oc20"),
    Case("esen", "3", "oc20"),
    Case("esen_gradient", "3", "oc20"),
)
PAPER = (Case("eqv2", "paper", "oc20"), Case("escn", "paper", "oc20"))
QUICK = tuple(
    Case(family, "tiny", batch, slab=(2, 2, 2))
    for family, batch in (
        ("eqv2", "oc20"),
        ("eqv2", "free"),
        ("eqv2", "stress"),
        ("escn", "oc20"),
    )  # fmt: skip
)
_QUICK_AXES = {"atoms of a structure": ((2, 2, 2), (2, 2, 3)), "Lmax": (2,)}


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Training steps and predictions of stock fairchem, fairchem's DeNS, and ours, "
        "in turn in one process. Cases are family-size/batch: eqv2-3/oc20, eqv2-12/oc20, "
        "eqv2-12/free (all atoms free), eqv2-3/stress (and a head of the stress), escn-3/oc20, "
        "escn-12/oc20, esen-3/oc20, esen_gradient-3/oc20; variants: flat and hydra "
        "(stock fairchem without DeNS), fairchem-dens, ours, fast. "
        "python -m benchmarks gpu --help: is it right and fast on the GPU that is here?",
    )
    add = found.add_argument
    add("--out", type=Path, default=Path("benchmark-report"),
        help="folder for report.md, results.json and pictures")  # fmt: skip
    add("--only", default="*", metavar="PATTERN",
        help="case/variant to measure, with * and ?, several with commas: 'eqv2-3/oc20/*', "
        "'*/flat,*/fast'; ratios need a stock variant")  # fmt: skip
    add("--rounds", type=int, default=7, help="that count; quartiles are over them")
    add("--warm-up", type=int, default=2, help="rounds before those that count")
    add("--threads", type=int, default=1, help="of torch; ratios are of wall clock if not 1")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    add("--amp", action="store_true", help="mixed precision, as the trainer's --amp (GPU)")
    add("--structures", type=int, help="of a batch (default 2)")
    add("--slab", type=int, nargs=3, metavar=("X", "Y", "LAYERS"),
        help="atoms of a slab (default 3 3 4)")  # fmt: skip
    add("--paper", action="store_true",
        help="also the paper's size: 12 layers, Lmax 6, resolution 18")  # fmt: skip
    add("--no-memory", action="store_true", help="leave out the processes that measure memory")
    add("--no-prediction", action="store_true", help="training steps only")
    add("--scaling", action="store_true",
        help="also seconds over atoms, edges, Lmax, batch size (first case)")  # fmt: skip
    add("--data", action="store_true", help="also LMDB, collation and graphs beside a step")
    add("--profile", action="store_true", help="also the time of a step by kind of operator")
    add("--products", action="store_true",
        help="also matrix products: torch's own beside those of fast")  # fmt: skip
    add("--quick", action="store_true", help="a smoke run with tiny models: does it work?")
    return found


def chosen(cases: tuple[Case, ...], pattern: str) -> list[tuple[Case, list[variants.Variant]]]:
    """Cases with their variants that ``pattern`` (``--only``) names."""
    patterns = pattern.split(",")
    found = []
    for case in cases:
        some = [
            each for each in variants.of(case)
            if any(fnmatch(f"{case.name}/{each.name}", p) for p in patterns)
        ]  # fmt: skip
        if some:
            found.append((case, some))
    return found


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure what is asked for; the content of results.json."""
    device = torch.device(arguments.device)
    torch.set_num_threads(arguments.threads)
    cases = QUICK if arguments.quick else CASES + (PAPER if arguments.paper else ())
    changes: dict[str, Any] = {}
    if arguments.structures:
        changes["structures"] = arguments.structures
    if arguments.slab:
        changes["slab"] = tuple(arguments.slab)
    cases = tuple(dataclasses.replace(case, **changes) for case in cases)
    work = chosen(cases, arguments.only)
    if not work:
        names = ", ".join(f"{c.name}/{v.name}" for c in cases for v in variants.of(c))
        raise SystemExit(f"--only {arguments.only}: no case of that name; there are {names}")
    settings = Settings(
        device=device,
        rounds=2 if arguments.quick else arguments.rounds,
        warm_up=arguments.warm_up,
        amp=arguments.amp,
        clock="user" if device.type == "cpu" and arguments.threads == 1 else "wall",
    )
    results = []
    arguments.out.mkdir(parents=True, exist_ok=True)
    for case, some in work:
        names = [each.name for each in some]
        result = fresh_process.run(
            case.name, timed, case, names, settings, arguments.threads, not arguments.no_prediction
        )
        for each in some if not arguments.no_memory else ():
            found = memory.measure(case, each, device, arguments.amp, arguments.threads)
            result["variants"][each.name]["memory"] = found
        results.append(result)
        # what is measured stays, whatever becomes of the rest
        (arguments.out / "results.json").write_text(json.dumps({"cases": results}, default=str))
    with tqdm(unit="step", desc="benchmark", disable=not _more(arguments)) as bar:

        def progress(what: str) -> None:
            bar.set_postfix_str(what, refresh=False)
            bar.update()

        settings = dataclasses.replace(settings, progress=progress)
        first = work[0][0]
        points = []
        if arguments.scaling:
            axes = _QUICK_AXES if arguments.quick else scaling.AXES
            points = scaling.run(first, settings, axes)
        profiles = []
        if arguments.profile:
            profiles = [row for case, some in work for row in profiling.run(case, some, settings)]
        loaded = []
        if arguments.data:
            loaded = [
                loading.run(case, each, settings)
                for case, some in work for each in some if each.ours
            ]  # fmt: skip
    kept = {"rounds", "warm_up", "amp", "clock"}
    return {
        "settings": {k: v for k, v in dataclasses.asdict(settings).items() if k in kept},
        "machine": machine.describe(device),
        "cases": results,
        "profiles": profiles,
        "scaling": points,
        "loading": loaded,
        "products": products.run() if arguments.products else [],
    }


def _more(arguments: argparse.Namespace) -> bool:
    return arguments.scaling or arguments.profile or arguments.data


@quiet()
def main(words: list[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else words
    if words[:1] == ["gpu"]:
        from benchmarks.gpu import check

        return check.main(words[1:])
    arguments = parser().parse_args(words)
    found = run(arguments)
    out = arguments.out
    plot.steps(found["cases"], out / report.STEPS)
    if found["scaling"]:
        plot.scaling(found["scaling"], out / report.SCALING)
    (out / "results.json").write_text(json.dumps(found, indent=1, default=str) + "\n")
    (out / "report.md").write_text(report.markdown(found))
    print("\n".join(report.bars_table(found["cases"])))
    print(f"{out / 'report.md'}, results.json, steps.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
