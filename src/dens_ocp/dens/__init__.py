"""The method, pure: options, the plan of a step, corruption, force encoding, loss and metrics."""
