"""What the journal orders, read in one go at the start of each round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from device.deploy.picture import Want, want_of
from device.journal import Journal, Starts, Trial
from schemas.config import Config
from schemas.desired import Desired


@dataclass(frozen=True, slots=True)
class Orders:
    """The newest desired state, the one in effect, and everything said beside them.

    `want` is what is in effect, with its configuration merged in; None before
    the first generation has been staged.
    """

    newest: Desired | None = None
    applied: Desired | None = None
    trial: Trial | None = None
    committed_generation: int = 0
    config: Config = field(default_factory=Config)
    holds: frozenset[str] = frozenset()
    asked: frozenset[str] = frozenset()
    starts: Mapping[str, Starts] = field(default_factory=dict)
    want: Want | None = None


async def read_orders(journal: Journal, former: Orders) -> Orders:
    """Return what the journal says now; documents that cannot have changed come from *former*."""
    trial = await journal.trial()
    orders = replace(
        former,
        trial=trial,
        config=await journal.config(),
        holds=await journal.holds(),
        asked=await journal.asked(),
        starts=await journal.every_start(),
    )
    if trial != former.trial:
        orders = replace(
            orders,
            newest=await journal.desired(),
            applied=await journal.applied(),
            committed_generation=await journal.committed_generation(),
        )
    if orders.applied == former.applied and orders.config == former.config:
        return orders
    want = None if orders.applied is None else want_of(orders.applied, orders.config)
    return replace(orders, want=want)
