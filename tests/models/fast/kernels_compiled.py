"""Compiles the kernels for GPUs that need not be there."""

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from dens_ocp.models.fast.operations import sphere_programs
from dens_ocp.models.fast.operations.sphere_kernel import constants

GPUS = {70: ("fp32", "fp16"), 80: ("fp32", "bf16"), 90: ("fp32", "bf16")}
SHAPES = [(19, 64, 196), (29, 64, 324), (49, 128, 324)]


def source_of(program, dtype, known):
    """The program for tensors of ``dtype``, with its constants ``known``."""
    names = program.arg_names
    tensors = names[: names.index("columns")]
    if triton.__version__.startswith("3.0."):  # torch 2.4
        types = {number: f"*{dtype}" for number in range(len(tensors))}
        constants = {names.index(name): value for name, value in known.items()}
        return ASTSource(program, {**types, len(tensors): "i32"}, constants)
    types = {name: f"*{dtype}" for name in tensors} | {"columns": "i32"}
    types |= dict.fromkeys(known, "constexpr")
    return ASTSource(program, {name: types[name] for name in names}, known)


for capability, dtype in [(gpu, dtype) for gpu, dtypes in GPUS.items() for dtype in dtypes]:
    for size, channels, points in SHAPES:
        known = constants(size, size - 1, channels, points)
        for program in (sphere_programs.forward, sphere_programs.backward):
            source = source_of(program, dtype, known)
            kernel = triton.compile(source, target=GPUTarget("cuda", capability, 32))
            assert kernel.metadata.shared <= 96 * 1024, kernel.metadata
            assert kernel.asm["cubin"]
print("compiled")
