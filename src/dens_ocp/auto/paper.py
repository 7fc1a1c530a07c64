"""The paper's own choices (Tables 7, 8, 9 of arXiv 2403.09549)."""

from __future__ import annotations

PAPER: dict[str, dict[str, str]] = {
    "OC20 2M": {"sigma": "0.1, 0.15", "p": "0.5", "r": "0.5", "coefficient": "10",
                "coefficient_decay": "constant", "lambda_F": "100", "forces": "direct"},
    "OC20 All+MD": {"sigma": "0.1", "p": "0.125", "r": "0.25", "coefficient": "15",
                    "coefficient_decay": "constant", "lambda_F": "100", "forces": "direct"},
    "OC22": {"sigma": "0.15", "p": "0.5", "r": "0.5", "coefficient": "25",
             "coefficient_decay": "constant", "lambda_F": "100", "forces": "direct"},
    "MD17": {"sigma": "0.05 (0.025)", "p": "0.25 (0.125)", "r": "0.25", "coefficient": "5 *",
             "coefficient_decay": "linear", "lambda_F": "80 (20, 100)", "forces": "gradient"},
}  # fmt: skip
"""By data set and option. OC20 2M: 12 epochs, and 20 or 30. MD17: in brackets other molecules."""

NOTE = (
    "* MD17: noise loss divided by the number of corrupted atoms; with all atoms as denominator, "
    "as elsewhere, this is 5 / (p r) = 80"
)
