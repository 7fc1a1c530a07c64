"""All layers of EquiformerV2 as a CUDA graph: the host launches two, not thousands of kernels.

With a few structures in a batch a GPU waits for the host: 84 % of a step in bfloat16 with 12 layers
and 148 atoms on an H100 (docs/gpu/h100-check/report.md). A graph has fixed shapes, so a batch is
made larger by atoms and edges that touch no other ones, to one of eight sizes an octave, and each
size is recorded once. Only in training, on a GPU, in the form of few launches
(:mod:`dens_ocp.models.fast.operations.launches`).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from fairchem.core.common import gp_utils
from fairchem.core.models.equiformer_v2.so3 import SO3_Embedding

from dens_ocp.models.fast.edge_frames import MatrixFrames
from dens_ocp.models.fast.graph_recording import Inputs, Recorded, padded, record, unnoticed
from dens_ocp.models.fast.operations.launches import working_dtype
from dens_ocp.models.fast.operations.so3_linear import embedding_like
from dens_ocp.models.fast.rotation import FramedRotation
from dens_ocp.patched import swapped

RECORDED_ON = {"cuda"}
"""Kinds of devices on which layers are recorded; tests add the CPU, with their own recorder."""

NOT_RECORDED = "The layers are computed without CUDA graphs"

MOST = 64
"""Sizes that are recorded at most; batches of further sizes are computed without a graph."""

WASTE = 1.25
"""A recorded size is taken for a batch if it has at most this many times its atoms and edges."""


class Layers(torch.nn.Module):
    """The layers one after the other, a function of tensors alone, under the autocast of now.

    Args:
        blocks: the layers of ``model``. model: fairchem's backbone in its fast form.
    """

    def __init__(self, blocks: torch.nn.ModuleList, model: torch.nn.Module) -> None:
        super().__init__()
        self.blocks = blocks
        self._rotation = (model.SO3_rotation[0],)  # no module of this one
        self._lmax_list = model.lmax_list
        kind = next(blocks.parameters()).device.type
        # around the forward alone: a backward runs outside autocast
        self._autocast = partial(
            torch.autocast,
            kind,
            dtype=torch.get_autocast_dtype(kind),
            enabled=torch.is_autocast_enabled(kind),
            cache_enabled=False,
        )

    def forward(
        self,
        x: torch.Tensor,
        there: torch.Tensor,
        edge_distance: torch.Tensor,
        atomic_numbers: torch.Tensor,
        source: torch.Tensor,
        target: torch.Tensor,
        batch: torch.Tensor,
    ) -> torch.Tensor:
        """
        Args:
            x: (N, (Lmax+1)^2, C) node embeddings.
            there: (E, rows, (Lmax+1)^2) rotations into the frames of the edges.
            edge_distance: (E, bases).
            atomic_numbers, batch: (N,) int64.
            source, target: (E,) int64.

        Returns:
            (N, (Lmax+1)^2, C).
        """
        (rotation,) = self._rotation
        # new objects: what layers keep of edges is kept by the tensor, and is not of another batch
        edge_index = torch.stack([source, target])
        embedding = SO3_Embedding(0, self._lmax_list.copy(), x.shape[2], x.device, x.dtype)
        embedding.set_embedding(x)
        frames = rotation.frames.with_matrices(there)
        with self._autocast(), swapped(rotation, "frames", frames):
            for block in self.blocks:
                embedding = block(embedding, atomic_numbers, edge_distance, edge_index, batch=batch)
        return embedding.embedding


class LayerGraphs:
    """Recorded layers of one model, by size.

    Attributes:
        recorded: graphs and what they read, by atoms, edges, dtypes.
        broken: why nothing is recorded any more; None: all is well.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self.recorded: dict[tuple[Any, ...], tuple[Recorded, Inputs]] = {}
        self._arenas: dict[str, torch.Tensor] = {}
        self._pool: Any = None
        self._awaits_backward = False
        self.broken: str | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> LayerGraphs:
        """A graph is of the memory that it was recorded with: a copy of the model has none."""
        return LayerGraphs(copy.deepcopy(self._model, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        return LayerGraphs, (self._model,)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The backbone's loop over its layers takes them from a graph inside the context, if they
        can be."""
        if not self._usable():
            yield
            return
        model = self._model
        instead = torch.nn.ModuleList([GraphedLayers(self, model.blocks)])
        with swapped(model, "num_layers", 1), swapped(model, "blocks", instead):
            yield

    def forget(self) -> None:
        """Give the memory of all graphs back."""
        self.recorded.clear()
        self._arenas.clear()
        self._pool = None

    def bytes_read(self) -> int:
        """Of the memory that batches are copied to; larger sizes share it with smaller ones."""
        return sum(each.nbytes for each in self._arenas.values())

    def _usable(self) -> bool:
        model = self._model
        return (
            self.broken is None
            and torch.is_grad_enabled()
            and model.training
            and not model.activation_checkpoint
            and not gp_utils.initialized()
            and isinstance(model.SO3_rotation[0], FramedRotation)
            and next(model.parameters()).device.type in RECORDED_ON
        )

    def __call__(
        self,
        blocks: torch.nn.ModuleList,
        x: torch.Tensor,
        frames: MatrixFrames,
        edge_distance: torch.Tensor,
        atomic_numbers: torch.Tensor,
        edge_index: torch.Tensor,
        batch: torch.Tensor,
    ) -> torch.Tensor | None:
        """As :class:`Layers`; None if there is no graph for this batch.

        A graph has one memory: a forward whose backward has not been is not overwritten by the
        next one, which is then computed without a graph.
        """
        if self._awaits_backward:
            return None
        given = {
            "x": x, "there": frames.there[0], "edge_distance": edge_distance,
            "atomic_numbers": atomic_numbers, "source": edge_index[0], "target": edge_index[1],
            "batch": batch,
        }  # fmt: skip
        atoms, edges = len(x), len(edge_distance)
        how = (working_dtype(x), *((each.dtype, each.requires_grad) for each in given.values()))
        key = (padded(atoms), padded(edges), *how)
        found = self.recorded.get(key)
        if found is None and len(self.recorded) < MOST:
            found = self._record(Layers(blocks, self._model), given, key)
        elif found is None:
            found = self._larger(key)
        if found is None:
            return None
        recorded, inputs = found
        out = recorded(*inputs.filled(given))[:atoms]
        if out.requires_grad:
            self._awaits_backward = True
            out.register_hook(self._after_backward)
        return out

    def _after_backward(self, _gradient: torch.Tensor) -> None:
        self._awaits_backward = False

    def _larger(self, key: tuple[Any, ...]) -> tuple[Recorded, Inputs] | None:
        """The smallest recorded size that ``key`` fits into without much waste."""
        sizes = [
            each
            for each in self.recorded
            if each[2:] == key[2:]
            and all(o <= n <= WASTE * o for o, n in zip(key[:2], each[:2], strict=True))
        ]
        return self.recorded[min(sizes)] if sizes else None

    def _record(
        self, layers: Layers, given: dict[str, torch.Tensor], key: tuple[Any, ...]
    ) -> tuple[Recorded, Inputs] | None:
        atoms, edges, *_ = key
        inputs = Inputs(given, atoms, edges, self._arenas)
        inputs.filled(given)
        try:
            with unnoticed(given["x"].device):
                if self._pool is None and given["x"].is_cuda:
                    self._pool = torch.cuda.graph_pool_handle()
                recorded = record(layers.train(), tuple(inputs.static.values()), self._pool)
        except RuntimeError as error:  # whatever a driver or a capture refuses
            self.broken = str(error).splitlines()[0]
            logging.warning("%s: %s", NOT_RECORDED, self.broken)
            return None
        self.recorded[key] = (recorded, inputs)
        return recorded, inputs


class GraphedLayers(torch.nn.Module):
    """Takes the place of all layers in the backbone's loop."""

    def __init__(self, graphs: LayerGraphs, blocks: torch.nn.ModuleList) -> None:
        super().__init__()
        self._of = (graphs, blocks)  # which are no modules of this one

    def forward(
        self,
        x: SO3_Embedding,
        atomic_numbers: torch.Tensor,
        edge_distance: torch.Tensor,
        edge_index: torch.Tensor,
        batch: torch.Tensor,
        node_offset: int = 0,
    ) -> SO3_Embedding:
        graphs, blocks = self._of
        frames = graphs._model.SO3_rotation[0].frames
        found = None
        if isinstance(frames, MatrixFrames):
            found = graphs(
                blocks, x.embedding, frames, edge_distance, atomic_numbers, edge_index, batch
            )
        if found is not None:
            return embedding_like(x, found)
        for block in blocks:
            x = block(x, atomic_numbers, edge_distance, edge_index, batch, node_offset)
        return x
