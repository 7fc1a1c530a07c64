"""Parts of a check that end as parts may. They run in processes that import nothing else."""

import os
import time

from benchmarks.gpu import findings
from benchmarks.gpu.parts import Setting


def raising(_: Setting):
    yield findings.holds("before", "it raised", True, "said")
    raise ValueError("this part is broken")


def hanging(_: Setting):
    yield findings.holds("before", "it hung", True, "said")
    time.sleep(1000)


def dying(_: Setting):
    os.kill(os.getpid(), 9)
    yield {}


def working(_: Setting, word: str):
    yield findings.holds("all", word, True, "well")
