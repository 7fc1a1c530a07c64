"""Values and gradients of the stand-in are those of torch-scatter.

``torch_scatter.pt`` has what torch-scatter 2.1.2 gave for the cases below, with torch 2.4.1:
``python -m tests.gaps.test_torch_scatter`` writes it, where torch-scatter is installed.
"""

from pathlib import Path

import pytest
import torch

from dens_ocp.gaps import torch_scatter as ours

FILE = Path(__file__).with_name("torch_scatter.pt")
REDUCTIONS = ("sum", "add", "mul", "mean", "min", "max")


def cases() -> dict[str, tuple[str, tuple, dict]]:
    """Name -> function, arguments, options."""
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(7, 3, generator=random)
    rows[3] = rows[1]  # equal ones in one place: one of them gets the gradient
    places = torch.tensor([0, 2, 2, 2, 5, 0, 5])
    whole = torch.randint(-9, 9, (7, 3), generator=random)
    pointers = torch.tensor([0, 2, 2, 5, 7])
    batch = torch.randn(2, 6, 4, generator=random)
    found = {}
    for reduce in REDUCTIONS:
        option = {"reduce": reduce}
        found[f"rows {reduce}"] = ("scatter", (rows, places), {"dim": 0, **option})
        found[f"rows size {reduce}"] = (
            "scatter",
            (rows, places),
            {"dim": 0, "dim_size": 8} | option,
        )
        found[f"last {reduce}"] = ("scatter", (rows.T.contiguous(), places), option)
        found[f"whole {reduce}"] = ("scatter", (whole, places), {"dim": 0, **option})
        found[f"each {reduce}"] = ("scatter", (rows, whole % 4), {"dim": 0, **option})
        if reduce == "mul":  # the package has it for scatter alone, and gives 0 for nothing at all
            continue
        found[f"none {reduce}"] = (
            "scatter",
            (rows[:0], places[:0]),
            {"dim": 0, "dim_size": 2} | option,
        )
        ordered = places.sort().values
        found[f"coo {reduce}"] = ("segment_coo", (rows, ordered), option)
        found[f"coo size {reduce}"] = ("segment_coo", (whole, ordered), {"dim_size": 9, **option})
        found[f"coo batch {reduce}"] = (
            "segment_coo", (batch, torch.tensor([[0, 0, 1, 1, 1, 3], [0, 1, 1, 2, 3, 3]])), option
        )  # fmt: skip
        found[f"csr {reduce}"] = ("segment_csr", (rows, pointers), option)
        found[f"csr whole {reduce}"] = ("segment_csr", (whole, pointers), option)
        found[f"csr batch {reduce}"] = (
            "segment_csr", (batch, torch.tensor([[0, 1, 1, 6], [0, 2, 4, 6]])), option
        )  # fmt: skip
    return found


def outcome(module, function: str, arguments: tuple, options: dict) -> tuple:
    """Values, and the gradient of the sum of their squares."""
    src, index = arguments
    src = src.clone().requires_grad_(src.is_floating_point())
    values = getattr(module, function)(src, index, **options)
    if not src.requires_grad:
        return values, None
    return values.detach(), torch.autograd.grad((values**2).sum(), src)[0]


@pytest.mark.parametrize("name", cases())
def test_as_torch_scatter(name):
    values, gradient = torch.load(FILE, weights_only=True)[name]
    got, slope = outcome(ours, *cases()[name])
    assert got.dtype == values.dtype and got.shape == values.shape
    torch.testing.assert_close(got, values)
    if gradient is not None:
        torch.testing.assert_close(slope, gradient)


@pytest.mark.parametrize("name", cases())
def test_as_the_installed_one(name):
    real = pytest.importorskip("torch_scatter")
    if real.__file__ == ours.__file__:
        pytest.skip("torch-scatter is not installed")
    for got, values in zip(
        outcome(ours, *cases()[name]), outcome(real, *cases()[name]), strict=True
    ):
        if values is not None:
            torch.testing.assert_close(got, values)


def test_second_derivative():
    """Gradient forces in training ask for it."""
    src = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([0, 1, 1, 0, 3])
    for reduce in ("sum", "mean", "max"):
        assert torch.autograd.gradgradcheck(
            lambda x, reduce=reduce: ours.scatter(x, index, 0, reduce=reduce) ** 3, src
        )


def test_sums_into_a_tensor():
    out = torch.ones(3, 2)
    found = ours.scatter(torch.ones(4, 2), torch.tensor([0, 0, 2, 2]), 0, out)
    assert found is out and out.tolist() == [[3, 3], [1, 1], [3, 3]]
    with pytest.raises(NotImplementedError, match="mean"):
        ours.scatter(torch.ones(2), torch.tensor([0, 0]), 0, torch.ones(1), reduce="mean")
    with pytest.raises(ValueError, match="'median' is not one of sum"):
        ours.scatter(torch.ones(2), torch.tensor([0, 0]), reduce="median")


if __name__ == "__main__":
    import torch_scatter as real

    torch.save({name: outcome(real, *case) for name, case in cases().items()}, FILE)
