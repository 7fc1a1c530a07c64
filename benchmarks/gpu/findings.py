"""What the check finds: JSON objects, each written as soon as it is known."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Finding = dict[str, Any]

GREEN, RED, NOT_JUDGED = "green", "red", "not judged"
NOT_ON_A_CPU = "not on a CPU"


@dataclass(frozen=True)
class Limit:
    """The largest value that is green, and why it is this one."""

    most: float
    why: str


def verdict(value: float, most: float) -> str:
    """:data:`GREEN` at or below the limit; :data:`RED` above it, and for what is not a number.

    >>> verdict(0.1, 0.2), verdict(0.3, 0.2), verdict(float("nan"), 0.2)
    ('green', 'red', 'red')
    """
    return GREEN if value <= most else RED


def judged(row: str, quantity: str, value: float, limit: Limit) -> Finding:
    """A measured value beside its limit."""
    return {
        "kind": "verdict", "row": row, "quantity": quantity, "value": value,
        "limit": limit.most, "verdict": verdict(value, limit.most), "why": limit.why,
    }  # fmt: skip


def holds(row: str, quantity: str, found: bool, detail: str) -> Finding:
    """Something that is so or is not; ``detail`` says what was seen."""
    return {
        "kind": "verdict", "row": row, "quantity": quantity, "value": detail,
        "limit": None, "verdict": GREEN if found else RED, "why": "",
    }  # fmt: skip


def not_judged(row: str, quantity: str, why: str) -> Finding:
    """A row that cannot be measured here."""
    return {
        "kind": "verdict", "row": row, "quantity": quantity, "value": None,
        "limit": None, "verdict": NOT_JUDGED, "why": why,
    }  # fmt: skip


def skipped(what: str, why: str) -> Finding:
    return {"kind": "skipped", "what": what, "why": why}


def failed(what: str, error: str) -> Finding:
    return {"kind": "failed", "what": what, "error": error}


def problems(findings: list[Finding]) -> list[Finding]:
    """Red rows, bars that are missed, parts that failed, and models of ours that do not run for
    another reason than too little memory."""

    def is_one(f: Finding) -> bool:
        broken = f.get("ours", False) and f.get("error") != "out of memory"
        return f["kind"] == "failed" or f.get("verdict") == RED or broken

    return list(filter(is_one, findings))


@dataclass
class Record:
    """The findings of a run, each also a line of a file and of the output.

    Attributes:
        path: of the JSON lines; it is written anew. say: prints a line.
        findings: so far, with ``part`` and ``t``, seconds since the start.
    """

    path: Path
    say: Callable[[str], Any] = print
    started: float = field(default_factory=time.monotonic)
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("")

    def add(self, part: str, finding: Finding) -> None:
        found = {"t": round(time.monotonic() - self.started, 1), "part": part, **finding}
        self.findings.append(found)
        line = json.dumps(found, default=str)
        with self.path.open("a") as file:
            file.write(line + "\n")
        self.say(line)
