"""A model of torch's CUDA caching allocator: the memory it reserves for a sequence of requests.

Rules of ``c10/cuda/CUDACachingAllocator.cpp`` with its default settings: sizes are rounded to 512 bytes; requests up
to 1 MiB are cut from segments of 2 MiB, up to 10 MiB from segments of 20 MiB, larger ones get a segment of their own
size in whole 2 MiB; a free block is reused best fit first, of equals that of the lowest address, and what is left of it
becomes a block. The real allocator frees unused segments before it fails; this model never does, so
it is an upper bound.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass

from memory_counting.meter import Allocation

MIB = 2**20
_ROUNDING = 512
_SMALL = MIB
_SMALL_SEGMENT = 2 * MIB
_MIDDLE = 10 * MIB
_MIDDLE_SEGMENT = 20 * MIB
_LARGE_ROUNDING = 2 * MIB


@dataclass(eq=False, slots=True)
class _Block:
    """A range of a segment."""

    address: int
    size: int
    small: bool
    free: bool = True
    before: _Block | None = None
    after: _Block | None = None


class CachingAllocator:
    """Serves requests and counts the reserved memory, which never shrinks."""

    def __init__(self) -> None:
        self.reserved = 0
        """Bytes of all segments."""
        self._used: dict[int, _Block] = {}
        # Free blocks by size and address.
        self._free: dict[bool, list[tuple[int, int, _Block]]] = {True: [], False: []}

    def allocate(self, name: int, size: int) -> None:
        """Serve a request; zero bytes reserve nothing."""
        if size == 0:
            return
        rounded = -(-size // _ROUNDING) * _ROUNDING
        block = self._best_fit(rounded) or self._new_segment(rounded)
        spare = block.size - rounded
        if spare >= _ROUNDING if block.small else spare > _SMALL:
            rest = _Block(block.address + rounded, spare, block.small, before=block, after=block.after)
            if rest.after is not None:
                rest.after.before = rest
            block.size, block.after = rounded, rest
            self._shelve(rest)
        block.free = False
        self._used[name] = block

    def free(self, name: int) -> None:
        """Free a block and merge it with free neighbours."""
        block = self._used.pop(name, None)
        if block is None:
            return
        block.free = True
        for neighbour in (block.before, block.after):
            if neighbour is not None and neighbour.free:
                self._unshelve(neighbour)
        if block.after is not None and block.after.free:
            self._absorb(block, block.after)
        if block.before is not None and block.before.free:
            block = self._absorb(block.before, block)
        self._shelve(block)

    def _best_fit(self, size: int) -> _Block | None:
        shelf = self._free[size <= _SMALL]
        place = bisect_left(shelf, (size, 0))
        if place == len(shelf):
            return None
        return shelf.pop(place)[2]

    def _new_segment(self, size: int) -> _Block:
        if size <= _SMALL:
            segment = _SMALL_SEGMENT
        elif size < _MIDDLE:
            segment = _MIDDLE_SEGMENT
        else:
            segment = -(-size // _LARGE_ROUNDING) * _LARGE_ROUNDING
        # Addresses assume consecutive segments.
        block = _Block(self.reserved, segment, size <= _SMALL)
        self.reserved += segment
        return block

    def _shelve(self, block: _Block) -> None:
        insort(self._free[block.small], (block.size, block.address, block))

    def _unshelve(self, block: _Block) -> None:
        shelf = self._free[block.small]
        shelf.pop(bisect_left(shelf, (block.size, block.address)))

    def _absorb(self, first: _Block, second: _Block) -> _Block:
        first.size += second.size
        first.after = second.after
        if first.after is not None:
            first.after.before = first
        first.free = True
        return first


def reserved_bytes(requests: Iterable[Allocation]) -> int:
    """Return the bytes that the allocator holds after a sequence of requests."""
    allocator = CachingAllocator()
    for request in requests:
        if request.size:
            allocator.allocate(request.block, request.size)
        else:
            allocator.free(request.block)
    return allocator.reserved
