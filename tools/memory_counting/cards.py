"""What cards can do: their data sheets' peaks, and the shares of them that are assumed to be reached.

The shares are guesses for eager PyTorch, not measurements. A small batch fills a large card less, so that the share
of the tensor cores falls as their peak rises.
"""

from __future__ import annotations

from dataclasses import dataclass

BANDWIDTH_SHARE = 0.75
"""Of the memory's peak, for kernels that only read and write."""

HOST_SECONDS = 20e-6
"""For each operation: Python, torch's dispatch and the launch. A network is never faster than its operations take to
be asked for; twenty microseconds put a batch of two through the U-Net 60 times a second at most."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """One card's peaks, dense, from its data sheet."""

    name: str
    memory_gib: float
    half_tflops: float
    """Tensor cores, float16 in, float32 accumulated."""
    tf32_tflops: float
    """Tensor cores on float32 rounded to TF32: what cuDNN takes for float32 convolutions unless told otherwise."""
    bandwidth_gbs: float
    """Of its memory, 10^9 bytes per second."""
    tensor_share: float
    """Assumed of both tensor peaks."""

    def device_seconds(self, flops: int, traffic: int, *, half: bool) -> float:
        """For one kernel: as long as the slower of computing and moving takes."""
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
"""A100 and H100 in their SXM form with 80 GB."""
