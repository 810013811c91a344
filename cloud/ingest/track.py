"""Which batches of a stream may be acknowledged (pure).

A watermark says "everything up to here", so it moves over a gap only when the
missing batches arrive, or when the device says that it has them no more.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_AHEAD = 4096
"""Stored batches beyond a gap that are remembered; then the gap is taken for lost."""


@dataclass(frozen=True, slots=True)
class Track:
    """Every batch up to *seq* is stored or among the *lost*; *ahead* are stored beyond a gap."""

    seq: int
    lost: int = 0
    ahead: frozenset[int] = frozenset()


def begin(seq: int, oldest: int | None) -> Track:
    """Return the track of a stream met for the first time by its batch *seq*.

    What is older than the spool's oldest, or than *seq* where the device does not say, was never owed.
    """
    return Track((seq if oldest is None else min(oldest, seq)) - 1)


def stored(track: Track, seq: int, oldest: int | None) -> Track:
    """Return *track* once batch *seq* is stored and the device has none before *oldest* any more."""
    if seq <= track.seq:
        return _dropped(track, oldest, seq)
    return _dropped(_joined(track.seq, track.lost, track.ahead | {seq}), oldest, seq)


def caught_up(track: Track, seq: int, lost: int) -> Track:
    """Return *track* once another worker has told the database that all is well up to *seq*."""
    if seq < track.seq:
        return track
    return _joined(seq, max(track.lost, lost), frozenset(each for each in track.ahead if each > seq))


def _dropped(track: Track, oldest: int | None, seq: int) -> Track:
    """Count as lost what is missing below *oldest*, which is never above the batch that says so."""
    floor = 0 if oldest is None else min(oldest, seq) - 1
    if len(track.ahead) > MAX_AHEAD:
        floor = max(floor, min(track.ahead) - 1)
    if floor <= track.seq:
        return track
    have = sum(1 for each in track.ahead if each <= floor)
    lost = track.lost + floor - track.seq - have
    return _joined(floor, lost, frozenset(each for each in track.ahead if each > floor))


def _joined(seq: int, lost: int, ahead: frozenset[int]) -> Track:
    """Move *seq* on over the batches that follow it without a gap."""
    reached = seq
    while reached + 1 in ahead:
        reached += 1
    return Track(
        reached, lost, frozenset(each for each in ahead if each > reached) if reached > seq else ahead
    )
