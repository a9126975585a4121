"""Splat files: their formats, and clouds of splats in memory."""
