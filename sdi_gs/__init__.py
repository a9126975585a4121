"""sdi-gs: a sentence in, a 3D object out, by Score Distillation via Inversion."""

__version__ = "0.1.0"
