"""Triangle meshes from a density: extraction, clean-up, files."""
