"""What a config says: files, overrides, defaults, references, typed and checked."""
