"""3D scenes that render with gradients."""
