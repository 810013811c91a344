"""What a start of the stack tells on its way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class StepState(StrEnum):
    """How a step of the start is going."""

    BEGUN = "begun"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Step:
    """One line of progress: which part, how it is, and the details for a person."""

    part: str
    state: StepState
    detail: str = ""


Report = Callable[[Step], None]


class StackFailed(Exception):  # noqa: N818 - says what happened
    """A part did not come up; carries which, and why with the end of its log."""

    def __init__(self, part: str, why: str) -> None:
        super().__init__(f"{part}: {why}")
        self.part = part
        self.why = why
