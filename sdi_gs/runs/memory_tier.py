"""The memory tier of a run, by the free memory of its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import torch

from sdi_gs.errors import UserError
from sdi_gs.priors.catalog import is_in_closed_form
from sdi_gs.runs.events import Notice, Observer, TierChosen, ignore
from sdi_gs.runs.predicted_run import predicted_need
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tiers import TIERS, Tier, TierChoice, tier_for, tier_named

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class VisibleCard:
    """A CUDA card that this process may use."""

    index: int
    name: str
    total_bytes: int


def tier_of_run(choice: TierChoice, config: RunConfig, *, device: torch.device, emit: Observer = ignore) -> Tier | None:
    """Return the memory tier of a run and emit it; None for no tier.

    "auto" is no tier on the CPU and for a prior without networks. Raises UserError if a card is too small for every
    tier and none was named.
    """
    if choice == "auto" and is_in_closed_form(config.prior):
        return None
    free_bytes = None
    if device.type == "cuda":
        index = device.index or 0
        line = other_cards_line(visible_cards(), used=index)
        if line is not None:
            emit(Notice(text=line))
        free_bytes = torch.cuda.mem_get_info(index)[0]
    return chosen_tier(choice, config, free_bytes=free_bytes, emit=emit)


def visible_cards() -> list[VisibleCard]:
    """Return all cards, without starting anything on them."""
    cards = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        cards.append(VisibleCard(index=index, name=properties.name, total_bytes=properties.total_memory))
    return cards


def chosen_tier(
    choice: TierChoice, config: RunConfig, *, free_bytes: int | None, emit: Observer = ignore
) -> Tier | None:
    """Return the named tier, or the fastest whose predicted need fits ``free_bytes`` of a card, and emit it.

    ``free_bytes`` is None without a card, where only a named tier counts.

    Raises UserError if the card is too small for every tier and none was named.
    """
    match choice:
        case "none":
            return None
        case "auto":
            if free_bytes is None:
                return None
            tier = tier_for(free_bytes, lambda tier: predicted_need(config, tier))
            if tier is None:
                raise UserError(_too_small(free_bytes))
            emit(TierChosen(tier=tier, free_bytes=free_bytes))
            return tier
        case "8" | "12" | "16" | "24" | "40":
            tier = tier_named(choice)
            emit(TierChosen(tier=tier, free_bytes=None))
            return tier
        case _:
            assert_never(choice)


def other_cards_line(cards: Sequence[VisibleCard], used: int) -> str | None:
    """Return a line about the other cards if their sizes differ, else None."""
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
        f"the card has {free / GIB:.1f} GiB of free memory and the smallest tier, {smallest.name}, is made for "
        f"{smallest.budget_bytes / GIB:.1f}: close other programs, try --tier {smallest.name} all the same, or use "
        "--device cpu --prior toybox-ideal"
    )
