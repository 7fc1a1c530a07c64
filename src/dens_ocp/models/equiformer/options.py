"""The options of ``equiformer_dens``, which bear the authors' names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from e3nn import o3
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from dens_ocp.dens.options import Section, is_missing, read
from dens_ocp.settings.sections.values import Decimal, Flag, Whole, flag, number


def _even(value: str) -> str:
    try:
        irreps = o3.Irreps(value)
    except ValueError as error:
        raise ValueError(f"is not valid: these are not irreps ({error})") from None
    degrees = [ir.l for _, ir in irreps]
    if any(ir.p != 1 for _, ir in irreps) or degrees != sorted(set(degrees)) or 0 not in degrees:
        raise ValueError(
            "must be even irreps in ascending order, each degree once, including l = 0; for "
            "example 128x0e+64x1e+32x2e"
        )
    return value


def _one_of(*choices: str | None) -> BeforeValidator:
    def check(value: Any) -> Any:
        if value not in choices:
            raise ValueError(f"is not one of {', '.join(each or 'null' for each in choices)}")
        return value

    return BeforeValidator(check)


EvenIrreps = Annotated[str, AfterValidator(_even)]
Count = Annotated[Whole, Field(ge=1)]
Rate = Annotated[Decimal, Field(ge=0, lt=1)]
On = Annotated[Literal[True], BeforeValidator(flag)]
Off = Annotated[Literal[False], BeforeValidator(flag)]


def _number_of_words(value: Any) -> Any:
    return number(value) if isinstance(value, str) else value


class EquiformerOptions(Section):
    """The defaults are the paper's model with Lmax = 2."""

    max_num_elements: Count = Field(64, description="atomic numbers must be smaller than this")
    irreps_node_embedding: EvenIrreps = Field(
        "128x0e+64x1e+32x2e", description="irreps of the features of an atom between blocks"
    )
    irreps_sh: EvenIrreps = Field(
        "1x0e+1x1e+1x2e",
        description="irreps of the spherical harmonics of edges and forces, one channel for each "
        "degree",
    )
    irreps_feature: EvenIrreps = Field(
        "512x0e+256x1e+128x2e",
        description="irreps of the features of an atom after the last block",
    )
    irreps_head: EvenIrreps = Field(
        "32x0e+16x1e+8x2e", description="irreps of a message in one attention head"
    )
    irreps_pre_attn: EvenIrreps | None = Field(
        None, description="irreps of a message before attention (default: irreps_node_embedding)"
    )
    irreps_mlp_mid: EvenIrreps = Field(
        "384x0e+192x1e+96x2e", description="irreps inside the feed-forward networks"
    )
    num_layers: Count = Field(6, description="number of blocks")
    num_heads: Count = Field(4, description="number of attention heads")
    number_of_basis: Count = Field(32, description="number of radial basis functions (exp-normal)")
    fc_neurons: list[Count] = Field(
        [64, 64], description="hidden sizes of the networks that take the distance"
    )
    max_radius: Decimal = Field(
        5.0, gt=0, examples=["5.0 (Angstrom)"], description="cutoff, Angstrom"
    )
    use_pbc: Flag = Field(
        False,
        description="use neighbours across the periodic boundaries of the cell; False: the cell "
        "is not used",
    )
    max_neighbors: Whole = Field(
        1000,
        description="with use_pbc, largest number of neighbours of an atom; without, all "
        "neighbours within the cutoff count",
    )
    use_attention: Flag = Field(
        True,
        description="False: sum messages without attention weights, divided by the square root "
        "of the average number of neighbours (Table 5)",
    )
    norm_layer: Annotated[str | None, _one_of("layer", None)] = Field(
        "layer", description="layer, or null for no equivariant layer normalisation (Table 5)"
    )
    weight_init: Annotated[str, _one_of("normal", "uniform")] = Field(
        "normal",
        description="initial values of linear layers and tensor products: normal or uniform; the "
        "paper uses uniform for the variant without attention and layer normalisation",
    )
    alpha_drop: Rate = Field(0.0, description="dropout rate of attention weights")
    proj_drop: Rate = Field(
        0.0, description="rate of equivariant dropout after attention and feed-forward networks"
    )
    out_drop: Rate = Field(
        0.0, description="rate of equivariant dropout after the last normalisation"
    )
    drop_path_rate: Rate = Field(
        0.0, description="probability that a structure skips a residual branch"
    )
    use_noise_head: Flag = Field(
        True, description="False: no noise head and no force encoding, so no DeNS"
    )
    use_force_encoding: Flag = Field(
        True, description="False: forces are never encoded (an ablation)"
    )
    # see force_encoding.checked_scale
    force_encoding_scale: Annotated[Any, BeforeValidator(_number_of_words)] = Field(
        1.0,
        description="factor of encoded forces (eV/Angstrom); 23.060548 gives kcal/mol/Angstrom, "
        "as in the authors' MD17 code",
    )
    use_denoising_energy: Flag = Field(
        True, description="False: no energy loss on DeNS structures (an ablation)"
    )

    # options of the authors' files and of fairchem that have one value here
    irreps_in: str | None = Field(
        None,
        description="MAXx0e with max_num_elements for MAX, or left out; an option of the "
        "authors' files",
    )
    irreps_equivariant_inputs: str | None = Field(
        None, description="the same as irreps_sh, or left out; an option of the authors' files"
    )
    irreps_node_attr: Literal["1x0e"] = Field(
        "1x0e",
        description="only this value exists here; an option of the authors' files and of "
        "fairchem-core",
    )
    basis_type: Literal["exp"] = Field(
        "exp",
        description="only this value exists here; an option of the authors' files and of "
        "fairchem-core",
    )
    rescale_degree: Off = Field(
        False,
        description="only this value exists here; an option of the authors' files and of "
        "fairchem-core",
    )
    nonlinear_message: On = Field(
        True,
        description="only this value exists here; an option of the authors' files and of "
        "fairchem-core",
    )
    regress_forces: On = Field(
        True,
        description="only this value exists here; an option of the authors' files and of "
        "fairchem-core",
    )
    direct_forces: Off = Field(
        False,
        description="only this value exists here; an option of the authors' files and of "
        "fairchem-core",
    )
    otf_graph: On = Field(
        True,
        description="only this value exists here; an option of the authors' files and of "
        "fairchem-core",
    )
    mean: None = Field(
        None,
        description="only this value exists here; an option of the authors' files and of "
        "fairchem-core",
    )
    std: None = Field(
        None,
        description="only this value exists here; an option of the authors' files and of "
        "fairchem-core",
    )
    scale: None = Field(
        None,
        description="only this value exists here; an option of the authors' files and of "
        "fairchem-core",
    )
    atomref: None = Field(
        None,
        description="only this value exists here; an option of the authors' files and of "
        "fairchem-core",
    )

    @field_validator("irreps_in", "irreps_equivariant_inputs")
    @classmethod
    def _follows(cls, value: str, info: ValidationInfo) -> str:
        """``irreps_in`` says the number of elements, ``irreps_equivariant_inputs`` repeats
        ``irreps_sh``."""
        elements = info.data.get("max_num_elements")
        wanted = f"{elements}x0e" if info.field_name == "irreps_in" else info.data.get("irreps_sh")
        if value != wanted:
            raise ValueError(f"must be {wanted!r}; set it to this value, or remove it")
        return value


def options_of(section: Mapping[str, Any]) -> EquiformerOptions:
    """The options of a section ``model``, without its name.

    Raises:
        DensError: an unknown option (with the nearest name), or a value that is not known.
    """
    given = read(EquiformerOptions, section, "model")
    if is_missing(section.get("norm_layer", "layer")):
        given["norm_layer"] = None  # a choice; elsewhere null stands for the default
    return EquiformerOptions(**given)
