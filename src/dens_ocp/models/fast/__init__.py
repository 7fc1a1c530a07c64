"""The same numbers, faster: parts of fairchem's backbones evaluated in another order."""
