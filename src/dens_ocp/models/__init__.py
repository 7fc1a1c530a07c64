"""fairchem backbones with force encoding and a noise head."""
