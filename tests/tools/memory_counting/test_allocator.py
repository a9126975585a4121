"""The model of torch's allocator on requests small enough to follow by hand."""

from __future__ import annotations

import pytest
from memory_counting.allocator import MIB, CachingAllocator, reserved_bytes
from memory_counting.meter import Allocation


def test_small_requests_share_a_segment_of_two_mebibytes() -> None:
    allocator = CachingAllocator()
    for name in range(4096):
        allocator.allocate(name, 500)
    assert allocator.reserved == 2 * MIB
    allocator.allocate(4096, 1)
    assert allocator.reserved == 4 * MIB


def test_requests_of_some_mebibytes_are_cut_from_twenty() -> None:
    allocator = CachingAllocator()
    for name in range(4):
        allocator.allocate(name, 5 * MIB)
    assert allocator.reserved == 20 * MIB


def test_large_requests_get_whole_pairs_of_mebibytes() -> None:
    allocator = CachingAllocator()
    allocator.allocate(1, 33 * MIB)
    assert allocator.reserved == 34 * MIB


def test_a_freed_block_serves_again_best_fit_first() -> None:
    allocator = CachingAllocator()
    for name, size in ((1, 100 * MIB), (2, 40 * MIB)):
        allocator.allocate(name, size)
    allocator.free(1)
    allocator.free(2)
    allocator.allocate(3, 40 * MIB)
    # The block of 40 was taken, not part of that of 100.
    allocator.allocate(4, 100 * MIB)
    assert allocator.reserved == 140 * MIB


def test_neighbours_join_when_both_are_free() -> None:
    allocator = CachingAllocator()
    allocator.allocate(1, 60 * MIB)
    allocator.free(1)
    allocator.allocate(2, 20 * MIB)
    allocator.allocate(3, 40 * MIB)
    assert allocator.reserved == 60 * MIB
    allocator.free(2)
    allocator.free(3)
    allocator.allocate(4, 60 * MIB)
    assert allocator.reserved == 60 * MIB


def test_gaps_that_nothing_fits_are_what_fragmentation_costs() -> None:
    requests = [Allocation(name, 20 * MIB) for name in range(4)]
    requests += [Allocation(0, 0), Allocation(2, 0), Allocation(9, 40 * MIB)]
    # 40 are free, in two pieces of 20.
    assert reserved_bytes(requests) == 120 * MIB


@pytest.mark.parametrize("order", [(1, 3), (3, 1)])
def test_of_equal_blocks_that_of_the_lowest_address_is_taken(order: tuple[int, int]) -> None:
    allocator = CachingAllocator()
    for name in (1, 2, 3, 4):
        allocator.allocate(name, 512_000)
    for name in order:
        allocator.free(name)
    # In place of 1: what 3 and 4 leave are neighbours, which hold a larger block.
    allocator.allocate(5, 512_000)
    allocator.free(4)
    allocator.allocate(6, 1_024_000)
    assert allocator.reserved == 2 * MIB
