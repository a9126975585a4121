"""gsplat's CUDA code: toolchain, diagnosis, compilation."""
