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
        raise ValueError(f"is not valid: no irreps ({error})") from None
    degrees = [ir.l for _, ir in irreps]
    if any(ir.p != 1 for _, ir in irreps) or degrees != sorted(set(degrees)) or 0 not in degrees:
        raise ValueError(
            "must be even irreps in ascending order, each degree once, l = 0 among them; for "
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
    """The defaults are the paper's model with Lmax = 2.

    Attributes:
        max_num_elements: atomic numbers are below it.
        irreps_node_embedding: features of an atom between blocks.
        irreps_sh: spherical harmonics of edges and forces, one channel of each degree.
        irreps_feature: features of an atom behind the last block.
        irreps_head: of a message in one attention head.
        irreps_pre_attn: of a message before; None: ``irreps_node_embedding``.
        irreps_mlp_mid: inside the feed-forward networks.
        num_layers: number of blocks.
        num_heads: attention heads.
        number_of_basis: radial bases, exp-normal.
        fc_neurons: hidden sizes of the functions of the distance.
        max_radius: cutoff, Angstrom.
        use_pbc: neighbours across the periodic boundaries of ``cell``; False: no box.
        max_neighbors: of an atom, with ``use_pbc``; without it all within the cutoff count.
        use_attention: False: messages are summed without attention weights (Table 5).
        norm_layer: ``layer``, or None: no equivariant layer normalisation (Table 5).
        weight_init: ``normal`` or ``uniform``, of linear layers and tensor products; the paper
            takes ``uniform`` for the variant without attention and layer normalisation.
        alpha_drop: dropout of attention weights.
        proj_drop: equivariant dropout behind attention and feed-forward networks.
        out_drop: equivariant dropout behind the last normalisation.
        drop_path_rate: probability that a structure skips a residual branch.
        use_noise_head: False: no noise head and no force encoding, so no DeNS.
        use_force_encoding: False: ablation, forces are never encoded.
        force_encoding_scale: encoded forces (eV/Angstrom) are multiplied by it; 23.060548 is the
            authors' MD17 code, which encodes kcal/mol/Angstrom.
        use_denoising_energy: False: ablation, no energy loss on DeNS structures.
    """

    max_num_elements: Count = 64
    irreps_node_embedding: EvenIrreps = "128x0e+64x1e+32x2e"
    irreps_sh: EvenIrreps = "1x0e+1x1e+1x2e"
    irreps_feature: EvenIrreps = "512x0e+256x1e+128x2e"
    irreps_head: EvenIrreps = "32x0e+16x1e+8x2e"
    irreps_pre_attn: EvenIrreps | None = None
    irreps_mlp_mid: EvenIrreps = "384x0e+192x1e+96x2e"
    num_layers: Count = 6
    num_heads: Count = 4
    number_of_basis: Count = 32
    fc_neurons: list[Count] = [64, 64]
    max_radius: Decimal = Field(5.0, gt=0, examples=["5.0 (Angstrom)"])
    use_pbc: Flag = False
    max_neighbors: Whole = 1000
    use_attention: Flag = True
    norm_layer: Annotated[str | None, _one_of("layer", None)] = "layer"
    weight_init: Annotated[str, _one_of("normal", "uniform")] = "normal"
    alpha_drop: Rate = 0.0
    proj_drop: Rate = 0.0
    out_drop: Rate = 0.0
    drop_path_rate: Rate = 0.0
    use_noise_head: Flag = True
    use_force_encoding: Flag = True
    # see force_encoding.checked_scale
    force_encoding_scale: Annotated[Any, BeforeValidator(_number_of_words)] = 1.0
    use_denoising_energy: Flag = True

    # options of the authors' files and of fairchem that have one value here
    irreps_in: str | None = None
    irreps_equivariant_inputs: str | None = None
    irreps_node_attr: Literal["1x0e"] = "1x0e"
    basis_type: Literal["exp"] = "exp"
    rescale_degree: Off = False
    nonlinear_message: On = True
    regress_forces: On = True
    direct_forces: Off = False
    otf_graph: On = True
    mean: None = None
    std: None = None
    scale: None = None
    atomref: None = None

    @field_validator("irreps_in", "irreps_equivariant_inputs")
    @classmethod
    def _follows(cls, value: str, info: ValidationInfo) -> str:
        """``irreps_in`` says the number of elements, ``irreps_equivariant_inputs`` repeats
        ``irreps_sh``."""
        elements = info.data.get("max_num_elements")
        wanted = f"{elements}x0e" if info.field_name == "irreps_in" else info.data.get("irreps_sh")
        if value != wanted:
            raise ValueError(f"must be {wanted!r}; set it to that, or remove it")
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
