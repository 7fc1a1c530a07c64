"""What a trainer writes into checkpoints and takes from them."""
