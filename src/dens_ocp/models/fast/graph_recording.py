"""What it takes to record a part of a model as a CUDA graph: fixed shapes, and nobody notices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from dens_ocp.patched import swapped

Recorded = Callable[..., torch.Tensor]


def padded(count: int) -> int:
    """The size that ``count`` atoms or edges get: at most an eighth more, at least one more.

    >>> [padded(n) for n in (7, 8, 100, 148, 2960)]
    [8, 16, 104, 160, 3072]
    """
    step = max(8, 1 << max(0, count.bit_length() - 4))
    return (count // step + 1) * step


def record(layers: torch.nn.Module, example: tuple[torch.Tensor, ...], pool: Any) -> Recorded:
    """The forward and the backward of a module, each as a CUDA graph.

    Other threads go on meanwhile: that of a data loader that pins memory, which in CUDA's default
    mode breaks a recording off, and NCCL's.

    Args:
        example: arguments, which every replay reads where they lie. pool: memory of all sizes.
    """
    graph = partial(torch.cuda.graph, capture_error_mode="thread_local")
    with swapped(torch.cuda, "graph", graph):
        return torch.cuda.make_graphed_callables(
            layers, example, allow_unused_input=True, pool=pool
        )


@contextmanager
def unnoticed(device: torch.device) -> Iterator[None]:
    """Recording draws no random numbers from the step's, and its backward sees no autocast. One
    that breaks off leaves its stream and a generator that takes itself to be recorded."""
    with torch.autocast(device.type, enabled=False):
        if device.type != "cuda":
            with torch.random.fork_rng(devices=[]):
                yield
            return
        state = torch.cuda.get_rng_state(device)
        try:
            with torch.cuda.stream(torch.cuda.current_stream(device)):
                yield
        except RuntimeError:
            generator = torch.cuda.default_generators[torch.cuda.current_device()]
            generator.graphsafe_set_state(generator.clone_state())
            raise
        finally:
            torch.cuda.set_rng_state(state, device)


class Inputs:
    """The tensors that a graph reads.

    Args:
        given: arguments of :meth:`Layers.forward` by name, as an example.
        atoms, edges: of the padded batch, more than ``given`` has.
        arenas: memory that all sizes share, by name; a larger one is added where it is too small.
    """

    _OF_ATOMS = ("x", "atomic_numbers", "batch")

    def __init__(
        self,
        given: dict[str, torch.Tensor],
        atoms: int,
        edges: int,
        arenas: dict[str, torch.Tensor],
    ) -> None:
        self.static: dict[str, torch.Tensor] = {}
        for name, tensor in given.items():
            rows = atoms if name in self._OF_ATOMS else edges
            shape = (rows, *tensor.shape[1:])
            arena = f"{name}, {tensor.dtype}"
            if arena not in arenas or arenas[arena].numel() < tensor[:1].numel() * rows:
                arenas[arena] = tensor.new_zeros(tensor[:1].numel() * rows)
            values = arenas[arena][: tensor[:1].numel() * rows].view(shape)
            self.static[name] = values.detach().requires_grad_(tensor.requires_grad)

    def filled(self, given: dict[str, torch.Tensor]) -> Sequence[torch.Tensor]:
        """``given`` with atoms and edges that touch no other ones: zeros, whose edges go from new
        atoms to the same ones. Tensors that want gradients are new, the others are copied to where
        the graph reads them."""
        found = []
        atoms = len(given["x"])
        for name, tensor in given.items():
            static = self.static[name]
            rows, more = len(tensor), len(static) - len(tensor)
            if tensor.requires_grad:
                wide = (0, 0) * (tensor.dim() - 1)
                found.append(torch.nn.functional.pad(tensor, (*wide, 0, more)))
                continue
            with torch.no_grad():
                static[:rows].copy_(tensor)
                if name in ("source", "target"):
                    new = torch.arange(more, device=tensor.device) % (len(self.static["x"]) - atoms)
                    torch.add(new, atoms, out=static[rows:])
                else:
                    static[rows:].zero_()
            found.append(static)
        return found
