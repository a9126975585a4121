"""A run: its folder, checkpoints, loop and results."""
