"""Records of an LMDB: forms they come in, checks, names, errors of reading."""
