"""Force encoding and its way into a fairchem backbone."""
