"""numba kernels of the toybox renderer."""
