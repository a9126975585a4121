"""numba kernels of the CPU rasteriser.

``simd`` gives a float vector with operators; ``projection`` maps Gaussians to the image plane, 16 at a time;
``binning`` lists the Gaussians of each tile front to back; ``compositing`` blends them, one tile row per vector.
Every kernel works on a range of its data, so the backend can spread ranges over threads; no result depends on how.

numba's cache sees a change of the file a kernel stands in, not of the helpers it calls: after editing ``simd``,
delete ``__pycache__``.
"""
