"""The options of DeNS: one typed source for defaults, bounds, units and documentation.

Two spellings are read from a fairchem config's ``optim`` section and give the same
:class:`DeNSConfig`:

Ours::

    optim:
      dens:
        p: 0.5            # share of DeNS structures
        r: 0.5            # share of their free atoms that is corrupted
        sigma: 0.1        # Angstrom
        coefficient: 10   # lambda_DeNS

The authors' (their published YAML files run as they are)::

    optim:
      use_denoising_pos: True
      denoising_pos_params: {prob: 0.5, fixed_noise_std: True, std: 0.1, corrupt_ratio: 0.5}
      denoising_pos_coefficient: 10
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from dens_ocp.dens.options import Section, is_missing, mapping, parsed
from dens_ocp.errors import DensError, nearest

OFFICIAL_KEYS = ("use_denoising_pos", "denoising_pos_params", "denoising_pos_coefficient")


class MultiScaleSigma(Section):
    """A schedule of noise levels: each DeNS structure draws one of ``num_steps`` values that are
    evenly spaced in the logarithm between ``low`` and ``high``. The noise target is divided by
    ``high``, as in the authors' code."""

    low: float = Field(gt=0, allow_inf_nan=False, description="smallest sigma, Angstrom")
    high: float = Field(gt=0, allow_inf_nan=False, description="largest sigma, Angstrom")
    num_steps: int = Field(default=50, ge=1, description="number of values of sigma")

    @model_validator(mode="after")
    def _ordered(self) -> MultiScaleSigma:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) must not be larger than high ({self.high})")
        return self


def _schedule(sigma: Any, info: ValidationInfo) -> Any:
    if not isinstance(sigma, Mapping):
        return sigma
    return parsed(MultiScaleSigma, sigma, f"{(info.context or {}).get('where', 'dens')}.sigma")


def _positive(sigma: float | MultiScaleSigma) -> float | MultiScaleSigma:
    if isinstance(sigma, float) and not 0 < sigma < math.inf:
        raise ValueError("must be larger than 0 (Angstrom)")
    return sigma


class DeNSConfig(Section):
    """Options of denoising non-equilibrium structures (arXiv 2403.09549, Algorithm 1).

    Raises:
        DensError: through :func:`parse_dens_config`, for an unknown option (with the nearest
            name) or a value out of bounds.
    """

    enabled: bool = Field(default=True, description="false: train the same model without DeNS")
    auto: bool = Field(
        default=False,
        description="pick sigma, p, r, coefficient and its decay from the training set when the "
        "run starts; options that are given keep their values (dens: auto is short for dens: "
        "{auto: true})",
    )
    p: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="p_DeNS: probability that a structure is chosen for DeNS",
    )
    r: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="r_DeNS: probability that a free atom of a DeNS structure is corrupted; 1: "
        "all of them (full corruption)",
    )
    sigma: Annotated[
        float | MultiScaleSigma, BeforeValidator(_schedule), AfterValidator(_positive)
    ] = Field(
        default=0.1,
        description="standard deviation of the noise, Angstrom; or {low, high, num_steps} for "
        "multi-scale noise",
    )
    coefficient: float = Field(
        default=10.0,
        ge=0,
        allow_inf_nan=False,
        description="lambda_DeNS: weight of the noise loss",
    )
    coefficient_decay: Literal["constant", "linear"] = Field(
        default="constant",
        description="constant: lambda_DeNS does not change; linear: it falls from coefficient at "
        "the first step to 0 at the end of the run (MD17 in the paper)",
    )
    coefficient_floor: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="with coefficient_decay: linear, lambda_DeNS falls to this factor of "
        "coefficient instead of 0 (EquiformerV3's coefficient_linear_decay_min_factor)",
    )
    denominator: Literal["shared", "separate"] = Field(
        default="shared",
        description="what the force loss and the noise loss are divided by. shared: both by the "
        "number of atoms that count (Algorithm 1, the authors' OC20/OC22 code). separate: each "
        "by the number of its own atoms (the authors' MD17 code); with the same coefficient the "
        "noise then has 1/(p r) times more weight",
    )
    choice: Literal["structure", "batch"] = Field(
        default="structure",
        description="what is drawn with probability p: each structure (Algorithm 1), or the "
        "whole batch of a rank (the authors' OC20/OC22 code)",
    )
    encode: Literal["corrupted", "masked"] = Field(
        default="corrupted",
        description="which forces are encoded. corrupted: those of the corrupted atoms "
        "(Algorithm 1). masked: also those of fixed atoms, which are drawn like free atoms but "
        "not moved, and the sigma of all atoms of a DeNS structure (the authors' OC20/OC22 code)",
    )
    energy: bool = Field(
        default=True,
        description="in DeNS structures, train on the energy of the original structure",
    )
    stress: bool = Field(
        default=True,
        description="in DeNS structures, train on the stress of the original structure, if "
        "stress is an output",
    )
    all_atoms: bool = Field(
        default=False, description="also corrupt fixed atoms, which then count in the loss"
    )
    strict_max_ratio: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="no DeNS for a structure in which a larger fraction of the atoms was drawn: "
        "of its free atoms, or of all its atoms with encode: masked (as in EquiformerV3's "
        "trainer)",
    )
    max_force_norm: float | None = Field(
        default=None,
        gt=0,
        description="no DeNS for a structure with a larger force on a free atom, or on any atom "
        "with encode: masked (as in EquiformerV3's trainer), eV/Angstrom",
    )
    max_stress_norm: float | None = Field(
        default=None,
        gt=0,
        description="no DeNS for a structure with a larger Frobenius norm of the stress, "
        "eV/Angstrom^3 (EquiformerV3's trainer)",
    )
    max_net_force: float | None = Field(
        default=None,
        gt=0,
        description="no DeNS for a structure with a larger norm of the sum of its forces, "
        "eV/Angstrom (EquiformerV3's max_mean_force_norm)",
    )
    min_num_atoms: int | None = Field(
        default=None,
        ge=1,
        description="no DeNS for a structure with fewer atoms (EquiformerV3's trainer)",
    )
    early_epochs: float | None = Field(
        default=None,
        gt=0,
        description="use DeNS only in this number of epochs at the start of the run "
        "(EquiformerV3's trainer)",
    )

    @property
    def active(self) -> bool:
        """Whether any structure can be corrupted."""
        return self.enabled and self.p > 0 and self.r > 0

    @property
    def in_words(self) -> str:
        """The main options in a line, for the log and ``dens-ocp doctor``."""
        if not self.active:
            return "off"
        sigma = self.sigma
        shown = sigma if isinstance(sigma, float) else f"{sigma.low} to {sigma.high}"
        return (
            f"p {self.p}, r {self.r}, sigma {shown} Angstrom, coefficient {self.coefficient:g}, "
            f"choice {self.choice}, encode {self.encode}"
        )

    @property
    def leaves_structures_out(self) -> bool:
        """Whether limits keep structures from being corrupted that p has chosen."""
        limits = (
            self.strict_max_ratio, self.max_force_norm, self.max_stress_norm, self.max_net_force,
            self.min_num_atoms, self.early_epochs,
        )  # fmt: skip
        return any(each is not None for each in limits)

    @property
    def noise_scale(self) -> float:
        """What the noise is divided by to become the target of the noise head, Angstrom."""
        return self.sigma.high if isinstance(self.sigma, MultiScaleSigma) else self.sigma

    def active_at(self, step: int, steps_per_epoch: int) -> bool:
        """Whether a structure may be corrupted at training step ``step`` (first step: 1)."""
        within = self.early_epochs is None or step <= self.early_epochs * steps_per_epoch
        return self.active and within

    def coefficient_at(self, step: int, total_steps: int) -> float:
        """lambda_DeNS at training step ``step`` (first step: 1) of ``total_steps``."""
        if self.coefficient_decay == "constant" or total_steps <= 0:
            return self.coefficient
        left = max(0.0, 1.0 - (step - 1) / total_steps)
        return self.coefficient * (self.coefficient_floor + (1 - self.coefficient_floor) * left)


class _OfficialParams(Section):
    """``optim.denoising_pos_params`` of the authors' code, with its defaults; those after
    ``all_atoms`` are EquiformerV3's."""

    prob: float = Field(default=0.0, ge=0, le=1, description="p of optim.dens")
    fixed_noise_std: bool = Field(
        False, description="True: one sigma, std; False: multi-scale noise"
    )
    std: float | None = Field(None, description="sigma, Angstrom")
    num_steps: int = Field(50, description="number of values of sigma")
    std_low: float | None = Field(None, description="smallest sigma, Angstrom")
    std_high: float | None = Field(None, description="largest sigma, Angstrom")
    corrupt_ratio: float = Field(default=1.0, ge=0, le=1, description="r of optim.dens")
    all_atoms: bool = Field(False, description="all_atoms of optim.dens")
    strict_max_ratio: float | None = Field(None, description="strict_max_ratio of optim.dens")
    max_force_norm: float | None = Field(None, description="max_force_norm, eV/Angstrom")
    max_stress_norm: float | None = Field(None, description="max_stress_norm, eV/Angstrom^3")
    max_mean_force_norm: float | None = Field(None, description="max_net_force, eV/Angstrom")
    min_num_atoms: int | None = Field(None, description="min_num_atoms of optim.dens")
    early_epochs: float | None = Field(None, description="early_epochs of optim.dens")
    coefficient_linear_decay_min_factor: float | None = Field(
        default=None, ge=0, le=1, description="coefficient_floor of optim.dens"
    )


def parse_dens_config(optim: Mapping[str, Any]) -> DeNSConfig | None:
    """Read the DeNS options of a fairchem config.

    Args:
        optim: the config's ``optim`` section.

    Returns:
        The options, or None when the section says nothing of DeNS.

    Raises:
        DensError: unknown or misspelt option, value out of bounds, both spellings at once, the
            authors' keys without ``use_denoising_pos``.
    """
    for key in optim:
        if key not in ("dens", *OFFICIAL_KEYS):
            hint = nearest(key, ("dens", *OFFICIAL_KEYS))
            if hint and ("denois" in str(key).lower() or str(key).lower() in ("den", "denss")):
                raise DensError(f"unknown option optim.{key}{hint}")
    official = [key for key in OFFICIAL_KEYS if key in optim]
    if "dens" not in optim:
        return _from_official(optim, official[0]) if official else None
    if official:
        raise DensError(
            f"optim.dens and optim.{official[0]} are both given, but they set the same options; "
            "keep optim.dens and remove the others"
        )
    block = {"auto": True} if optim["dens"] == "auto" else optim["dens"]
    if not isinstance(block, Mapping):
        raise DensError(
            f"optim.dens: {block!r} is not a block of options; write for example "
            "dens: {p: 0.5, r: 0.5, sigma: 0.1, coefficient: 10}, or dens: auto"
        )
    return parsed(DeNSConfig, block, "optim.dens")


def _from_official(optim: Mapping[str, Any], first: str) -> DeNSConfig:
    if "use_denoising_pos" not in optim:
        raise DensError(
            f"optim.use_denoising_pos is missing, but optim.{first} is given; write "
            "use_denoising_pos: True to train with DeNS, or False to train without it"
        )
    if not optim["use_denoising_pos"]:
        return DeNSConfig(enabled=False)
    where = "optim.denoising_pos_params"
    given = mapping(optim.get("denoising_pos_params"), where)
    # None is a word in YAML, and in OMat24's published files
    given = {name: None if is_missing(value) else value for name, value in given.items()}
    params = parsed(_OfficialParams, given, where)
    for name in ("std",) if params.fixed_noise_std else ("std_low", "std_high"):
        value = getattr(params, name)
        if value is None:
            raise DensError(
                f"{where}.{name} is missing: with fixed_noise_std: {params.fixed_noise_std} it "
                "gives the standard deviation of the noise in Angstrom, for example 0.1"
            )
        if not 0 < value < math.inf:
            raise DensError(f"{where}.{name}: {value} must be larger than 0 (Angstrom)")
    coefficient = optim.get("denoising_pos_coefficient")
    if coefficient is None:
        raise DensError(
            "optim.denoising_pos_coefficient is missing; give the weight of the noise loss "
            "(lambda_DeNS), for example 10"
        )
    levels = {"low": params.std_low, "high": params.std_high, "num_steps": params.num_steps}
    same = {
        "all_atoms", "strict_max_ratio", "max_force_norm", "max_stress_norm", "min_num_atoms",
        "early_epochs",
    }  # fmt: skip
    floor = params.coefficient_linear_decay_min_factor
    decay = {"coefficient_decay": "linear", "coefficient_floor": floor}
    return parsed(
        DeNSConfig,
        {
            "p": params.prob,
            "r": params.corrupt_ratio,
            "sigma": params.std if params.fixed_noise_std else levels,
            "coefficient": coefficient,
            "choice": "batch",
            "encode": "masked",
            "max_net_force": params.max_mean_force_norm,
            **({} if floor is None else decay),
            **params.model_dump(include=same),
        },
        "optim.denoising_pos_*",
    )
