"""``optim.dens: auto``: sigma, p, r and lambda_DeNS from the training set."""
