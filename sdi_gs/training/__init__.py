"""The trainer, its losses, and the fitting of scenes to images."""
