"""numba kernels of the hash-grid field for the CPU: encoding, marching and compositing, forward and backward.

Every kernel works on a range of its data or on whole grid levels, so threads can share the work; no result depends on
the number of threads.
"""
