"""numba kernels of the CPU rasteriser.

``simd`` defines a float vector with operators. ``projection`` maps Gaussians to the image plane, a vector of them at
a time, and ``projection_backward`` is its gradient; ``binning`` lists the Gaussians of each tile front to back;
``compositing`` blends them, a block of pixels at a time, and ``compositing_backward`` is its gradient. Every kernel
works on a range of its data, so the backend can spread ranges over threads; no result depends on the split.
"""
