"""Cards: peaks from their data sheets, and the shares of the peaks that are assumed to be reached.

The shares are guesses for eager PyTorch, not measurements. A small batch fills a large card less, so that the share
of the tensor cores falls as their peak rises.
"""

from __future__ import annotations

from dataclasses import dataclass

BANDWIDTH_SHARE = 0.75
"""Share of the memory's peak, for kernels that only read and write."""

HOST_SECONDS = 40e-6
"""Host time of an operation: Python, torch's dispatch and the launch. A network cannot be faster than its
launches: of the steps measured on an H100 those with small batches took 40 to 57 microseconds an operation
(docs/reports/gpu-measured.json)."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """One card's peaks, dense, from its data sheet."""

    name: str
    memory_gib: float
    half_tflops: float
    """Tensor cores, float16 in, float32 accumulated."""
    tf32_tflops: float
    """Tensor cores on float32 rounded to TF32: cuDNN's default for float32 convolutions."""
    bandwidth_gbs: float
    """Memory bandwidth, 10^9 bytes per second."""
    tensor_share: float
    """Assumed share of both tensor peaks."""

    def device_seconds(self, flops: int, traffic: int, *, half: bool) -> float:
        """Return the time of one kernel: the longer of computing and moving data."""
        peak = self.half_tflops if half else self.tf32_tflops
        return max(
            flops / (peak * self.tensor_share * 1e12),
            traffic / (self.bandwidth_gbs * BANDWIDTH_SHARE * 1e9),
        )


CARDS = (
    Card(name="RTX 4090", memory_gib=24, half_tflops=165.2, tf32_tflops=82.6, bandwidth_gbs=1008.0, tensor_share=0.50),
    Card(name="A6000", memory_gib=48, half_tflops=154.8, tf32_tflops=77.4, bandwidth_gbs=768.0, tensor_share=0.45),
    Card(name="A100", memory_gib=80, half_tflops=312.0, tf32_tflops=156.0, bandwidth_gbs=2039.0, tensor_share=0.45),
    Card(name="H100", memory_gib=80, half_tflops=989.4, tf32_tflops=494.7, bandwidth_gbs=3350.0, tensor_share=0.30),
)
"""A100 and H100 are the SXM versions with 80 GB."""
