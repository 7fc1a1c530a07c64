"""The precisions in which a step is taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch

from benchmarks.steps import Runner
from dens_ocp.patched import swapped


@dataclass(frozen=True)
class Precision:
    """
    Attributes:
        name: of the report. autocast: its dtype; None: none.
        tf32: matrix products that stay in float32 are TF32 on a GPU.
        on_cpu: a CPU has it.
    """

    name: str
    autocast: torch.dtype | None = None
    tf32: bool = False
    on_cpu: bool = True

    @contextmanager
    def of(self, *runners: Runner) -> Iterator[None]:
        """Steps of ``runners`` are taken in it inside the context."""
        with ExitStack() as stack:
            stack.enter_context(swapped(torch.backends.cuda.matmul, "allow_tf32", self.tf32))
            for runner in runners:
                stack.enter_context(swapped(runner, "autocast", self.autocast))
            yield

    def there(self, device: torch.device) -> bool:
        return self.on_cpu or device.type == "cuda"


FLOAT32 = Precision("float32")
TF32 = Precision("TF32", tf32=True, on_cpu=False)
BFLOAT16 = Precision("bfloat16", torch.bfloat16, tf32=True)
FLOAT16 = Precision("float16", torch.float16, tf32=True, on_cpu=False)
ALL = (FLOAT32, TF32, BFLOAT16, FLOAT16)
