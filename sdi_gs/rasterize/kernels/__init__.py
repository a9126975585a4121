"""numba kernels of the CPU rasteriser.

``simd`` defines a float vector with operators. ``projection`` maps Gaussians to the image plane, a vector of them at
a time, and ``projection_backward`` is its gradient; ``binning`` lists the Gaussians of each tile front to back;
``compositing`` blends them, a block of pixels at a time. Every kernel works on a range of its data, so the backend
can spread ranges over threads; no result depends on the split.

numba's cache notices changes in the file that defines a kernel, but not in the helpers that it calls: after editing
``simd``, ``geometry`` or ``jit``, delete ``__pycache__``.
"""
