from hypothesis import given
from hypothesis import strategies as st

from cloud.ingest.track import MAX_AHEAD, Track, begin, caught_up, stored

orders = st.permutations(range(1, 12)).flatmap(
    lambda order: st.lists(st.sampled_from(order), max_size=10).map(lambda again: [*order, *again])
)


@given(orders)
def test_whatever_the_order_and_the_repeats_the_mark_ends_at_the_last_batch(order: list[int]) -> None:
    track = begin(order[0], oldest=1)

    for seq in order:
        track = stored(track, seq, oldest=1)

    assert track == Track(11)


@given(st.lists(st.integers(1, 40), min_size=1))
def test_the_mark_never_covers_a_batch_that_did_not_come(arrived: list[int]) -> None:
    track = begin(arrived[0], oldest=1)
    for number, seq in enumerate(arrived, start=1):
        track = stored(track, seq, oldest=1)
        assert set(range(1, track.seq + 1)) <= set(arrived[:number])


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 60) | st.none())))
def test_the_mark_never_goes_back(steps: list[tuple[int, int | None]]) -> None:
    track = Track(0)
    for seq, oldest in steps:
        later = stored(track, seq, oldest)
        assert later.seq >= track.seq
        assert later.lost >= track.lost
        track = later


def test_a_gap_holds_the_mark_until_it_is_filled() -> None:
    track = stored(stored(Track(4), 6, None), 7, None)

    assert track.seq == 4
    assert stored(track, 5, None) == Track(7)


def test_what_the_device_dropped_is_counted_and_no_longer_waited_for() -> None:
    track = stored(stored(Track(4), 6, None), 20, oldest=10)

    assert (track.seq, track.lost) == (9, 4)
    assert track.ahead == {20}


def test_a_device_cannot_disown_the_batch_it_is_sending() -> None:
    assert stored(Track(4), 6, oldest=100).seq == 6


def test_a_stream_begins_at_the_oldest_batch_of_the_spool() -> None:
    assert begin(9, oldest=3) == Track(2)
    assert begin(9, oldest=None) == Track(8)


def test_what_is_remembered_beyond_a_gap_is_bounded() -> None:
    track = Track(0)
    for seq in range(2, 2 * MAX_AHEAD):
        track = stored(track, seq, None)

    assert track.seq == 2 * MAX_AHEAD - 1
    assert track.lost == 1


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.lists(st.integers(0, 39), max_size=10))
def test_two_workers_that_share_a_stream_bring_it_to_its_end_and_lose_nothing(
    turns: list[bool], crashes: list[int]
) -> None:
    """Each worker sees a part; the mark in the database is all they share, and the device trims by it."""
    tracks: dict[bool, Track] = {}
    mark, lost = 0, 0
    for number, worker in enumerate([*turns, *turns]):
        if number in crashes:
            tracks.pop(worker, None)
        sent = range(mark + 1, len(turns) + 1)  # what the device still has; the oldest is sent again at last
        if not sent:
            break
        seq = sent[0] if number >= len(turns) else min(max(number + 1, sent[0]), len(turns))
        track = stored(caught_up(tracks.get(worker, Track(mark)), mark, lost), seq, oldest=sent[0])
        tracks[worker] = track
        mark, lost = max(mark, track.seq), max(lost, track.lost)

    assert lost == 0
    assert mark == len(turns)
