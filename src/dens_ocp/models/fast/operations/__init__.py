"""Single operations of fairchem's models in faster forms."""
