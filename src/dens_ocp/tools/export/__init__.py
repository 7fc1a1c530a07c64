"""A DeNS checkpoint becomes one of stock fairchem that needs no plugin.

The target is fairchem's flat model of the same architecture (``equiformer_v2``, ``escn``), not its
hydra layout. With fairchem-core 1.10.0 the flat models

- take the options of a published ``model`` section as they stand;
- decay the same weights in training as before (hydra asks ``GraphModelMixin``, which decays those
  of EquiformerV2's norms);
- add ``energy_lin_ref`` to the energy (the hydra backbone only holds the parameter) and recompute
  eSCN's blocks under ``activation_checkpoint`` (the hydra backbone ignores it).

fairchem calls the flat EquiformerV2 deprecated and warns when it is built. Flat models have energy
and forces alone: a model with ``heads`` (stress) becomes a hydra model all the same.
"""
