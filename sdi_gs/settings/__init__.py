"""Every setting of a run and its bounds; nothing here imports torch."""
