"""``python -m benchmarks gpu``: the order of the check, and its time."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks import machine
from benchmarks.gpu import (
    agreement,
    amp_training,
    compiled,
    kernels,
    picture,
    program,
    report,
    speed,
    step_profile,
)
from benchmarks.gpu.findings import Record, failed, problems, skipped
from benchmarks.gpu.parts import Part, Setting
from benchmarks.gpu.worker import PartFailed, TimeIsOver, Worker

FINDINGS, REPORT, PICTURE = "findings.jsonl", "report.md", "speed.svg"
_RESERVE = 5.0  # seconds for report and picture
_ALL = ("flat", "fairchem-dens", "ours", "fast", "graphs")

PARTS = (
    Part("agreement, EquiformerV2", agreement.run, 30, options={"family": "eqv2"}),
    Part("agreement, eSCN", agreement.run, 20, options={"family": "escn"}),
    Part("kernels", kernels.run, 20, most=120),
    Part("training with AMP", amp_training.run, 15),
    Part("bars", speed.of_bars, 60),
    Part("program", program.run, 60, most=150),
    Part("profile", step_profile.run, 20, most=90),
    Part("eSCN", speed.of_case, 25, options={
        "family": "escn", "size": "paper", "structures": 4, "names": _ALL,
        "tasks": ("step", "predict")}),
    Part("other forms", speed.of_case, 30, options={
        "family": "eqv2", "size": "paper", "structures": 4,
        "names": ("flat", "fairchem-dens", "ours", "fast")}),
    Part("batches", speed.of_batches, 25, options={"seconds": 100.0}),
    Part("prediction", speed.of_case, 25, options={
        "family": "eqv2", "size": "paper", "structures": 4, "names": ("flat", "ours", "fast"),
        "tasks": ("predict",)}),
    Part("small model", speed.of_case, 20, options={
        "family": "eqv2", "size": "3", "structures": 16, "names": _ALL,
        "tasks": ("step", "predict")}),
    Part("processor", speed.of_processor, 60),
    Part("compile, fast", compiled.run, 30, most=90, options={"name": "fast"}, may_fail=True),
    Part("compile, stock", compiled.run, 30, most=90, options={"name": "flat"}, may_fail=True),
)  # fmt: skip
"""Most important first. Seconds are those of an H100, about, most of them for making trainers."""


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m benchmarks gpu",
        description="Is DeNS right and fast on the GPU that is here? Agreement with the CPU, the "
        "Triton kernels, training with AMP, time and memory beside stock fairchem, the real "
        "program with a kill and a resume, a profile. The exit code is 1 if a row is red or a part "
        "failed.",
    )
    add = found.add_argument
    add("--out", type=Path, default=Path("gpu-report"),
        help=f"folder for {FINDINGS}, {REPORT}, {PICTURE} and logs of the program")  # fmt: skip
    add("--device", choices=("cuda", "cpu"), default="cuda",
        help="cpu: a rehearsal; use --quick with it")  # fmt: skip
    add("--quick", action="store_true", help="tiny models: does it work? Times mean nothing")
    add("--seconds", type=float, default=475.0,
        help="of the whole check; parts that no longer fit are skipped and listed")  # fmt: skip
    add("--only", metavar="TEXT", action="append",
        help="only parts whose name has this text; several times: any of them")  # fmt: skip
    return found


def chosen(only: Sequence[str] | None) -> tuple[Part, ...]:
    """The parts that ``--only`` names.

    Raises:
        SystemExit: there is no such part.
    """
    if only is None:
        return PARTS
    for each in only:
        if not any(each in part.name for part in PARTS):
            names = "; ".join(part.name for part in PARTS)
            raise SystemExit(f"--only {each}: no part has that in its name; there are {names}")
    return tuple(part for part in PARTS if any(each in part.name for each in only))


def run(parts: Sequence[Part], setting: Setting, record: Record) -> None:
    """The parts in their order; what is red or broken in one keeps no other from running."""
    worker = Worker()
    try:
        with tqdm(total=len(parts), unit="part", desc="GPU check", disable=None) as bar:
            for part in parts:
                bar.set_postfix_str(part.name)
                if not setting.allows(part.seconds):
                    why = f"{setting.left():.0f} s left, takes about {part.seconds:.0f}"
                    record.add(part.name, skipped(part.name, why))
                else:
                    _run_part(worker, part, setting, record)
                bar.update()
    finally:
        worker.close()


def _run_part(worker: Worker, part: Part, setting: Setting, record: Record) -> None:
    started = time.monotonic()
    try:
        for finding in worker.run(part, setting):
            record.add(part.name, finding)
    except TimeIsOver:
        record.add(part.name, skipped(f"the rest of {part.name}", "the time of the check is over"))
    except PartFailed as error:
        kind = skipped if part.may_fail else failed
        record.add(part.name, kind(part.name, str(error)))
    seconds = round(time.monotonic() - started, 1)
    record.add(part.name, {"kind": "time", "what": part.name, "seconds": seconds})


def main(words: list[str] | None = None) -> int:
    started = time.time()
    arguments = parser().parse_args(words)
    parts = chosen(arguments.only)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            "--device cuda: torch finds no GPU here; --device cpu --quick rehearses the check"
        )
    out = arguments.out.resolve()
    deadline = started + arguments.seconds - _RESERVE
    setting = Setting(arguments.device, arguments.quick, out, deadline)
    record = Record(out / FINDINGS, say=lambda line: tqdm.write(line, file=sys.stdout))
    about = {"device": arguments.device, "quick": arguments.quick, "seconds": arguments.seconds}
    record.add("start", {"kind": "machine", **machine.describe(setting.device), **about})
    try:
        run(parts, setting, record)
    finally:
        picture.speed(record.findings, out / PICTURE)
        (out / REPORT).write_text(report.markdown(record.findings, PICTURE))
    red = problems(record.findings)
    for each in red:
        print(
            f"red: {each.get('row', each.get('what'))}, {each.get('quantity', each.get('error'))}"
        )
    print(f"{arguments.out / REPORT}, {FINDINGS}, {PICTURE}; {len(red)} red or failed")
    return 1 if red else 0
