"""What leaves a run: splat files, pictures and films."""
