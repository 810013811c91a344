"""A bus that behaves, without a broker."""

from collections.abc import Sequence
from datetime import timedelta
from random import Random
from uuid import UUID

from cloud.bus import Broker, Bus, Incoming
from schemas.errors import ErrorCode, FleetError, problem
from schemas.topics import DownTopic, Topics


async def _nothing(arrived: Sequence[Incoming]) -> None: ...


class Taker(Bus):
    """A bus with a broker that takes what it is asked to, or nothing while it hangs."""

    def __init__(self) -> None:
        super().__init__(
            Broker("localhost", 1, "nobody"),
            Topics("fleet/v1"),
            filters=[],
            handler=_nothing,
            random=Random(1),
        )
        self.hangs = False
        self.asked: list[UUID] = []

    @property
    def connected(self) -> bool:
        return True

    async def publish(self, topic: DownTopic, payload: bytes, *, expiry: timedelta | None = None) -> None:  # noqa: ARG002 - as a bus has them
        self.asked.append(topic.device)
        if self.hangs:
            raise FleetError(problem(ErrorCode.BROKER_UNREACHABLE, "no answer"))
