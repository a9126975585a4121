"""Which tier a run gets, by the card's free memory, and what is said about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

import torch

from sdi_gs.errors import UserError
from sdi_gs.planning.tiers import TIERS, Tier, TierChoice, tier_for, tier_named

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class VisibleCard:
    """A CUDA card that this process may use."""

    index: int
    name: str
    total_bytes: int
    free_bytes: int


def visible_cards() -> list[VisibleCard]:
    """All of them; asking for free memory starts CUDA on each, so only the ``torch.cuda.current_device`` is asked."""
    cards = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        cards.append(
            VisibleCard(
                index=index, name=properties.name, total_bytes=properties.total_memory, free_bytes=properties.total_memory
            )
        )
    return cards


def free_memory(device: torch.device) -> int:
    """Bytes that a CUDA device has left."""
    return torch.cuda.mem_get_info(device)[0]


def chosen_tier(
    choice: TierChoice, *, free_bytes: Callable[[], int] | None, say: Callable[[str], None]
) -> Tier | None:
    """The tier that was asked for, or the one that suits the card; None for none.

    ``free_bytes`` asks the card; None where there is no card, and then "auto" is none.

    Raises UserError where the card is too small for every tier and none was named.
    """
    match choice:
        case "none":
            return None
        case "auto":
            if free_bytes is None:
                return None
            free = free_bytes()
            tier = tier_for(free)
            if tier is None:
                raise UserError(_too_small(free))
            say(f"tier {tier.name} for {free / GIB:.1f} GiB of free memory: {tier.summary}; --tier chooses another")
            return tier
        case "8" | "12" | "16" | "24" | "40":
            tier = tier_named(choice)
            say(f"tier {tier.name} as asked: {tier.summary}")
            return tier
        case _:
            assert_never(choice)


def other_cards_line(cards: Sequence[VisibleCard], used: int) -> str | None:
    """What to say where cards of different sizes are there; None where there is nothing to choose."""
    if len({card.total_bytes for card in cards}) < 2:
        return None
    mine = next(card for card in cards if card.index == used)
    others = ", ".join(f"{_size(card)} as cuda:{card.index}" for card in cards if card.index != used)
    return (
        f"using cuda:{used}, {_size(mine)}; also there: {others}; choose with --device, "
        "or hide cards with CUDA_VISIBLE_DEVICES"
    )


def _size(card: VisibleCard) -> str:
    return f"{card.name} ({card.total_bytes / GIB:.0f} GiB)"


def _too_small(free: int) -> str:
    smallest = TIERS[-1]
    return (
        f"the card has {free / GIB:.1f} GiB of free memory and the smallest tier, {smallest.name}, is promised to fit "
        f"into {smallest.budget_bytes / GIB:.1f}: close other programs, try --tier {smallest.name} all the same, or use "
        "--device cpu --prior toybox-ideal"
    )
