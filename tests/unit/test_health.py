"""What a service's check says, answer by answer."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from device.deploy.health import Tracker, answered, begin, health_of
from device.engine.protocol import Container, ContainerState, ProbeAnswer
from schemas.desired import DockerCheck, ExecCheck, TcpCheck
from schemas.reported import Health

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
CHECK = TcpCheck(type="tcp", port=80, interval=10, retries=3)
PASS, FAIL = ProbeAnswer(passed=True), ProbeAnswer(passed=False, reason="connection refused")
WEB = Container(
    id="1",
    name="fl-web",
    service="web",
    image="web:1",
    image_id="sha256:1",
    fingerprint="f",
    generation=1,
    state=ContainerState.RUNNING,
    health=Health.UNHEALTHY,
    started_at=NOON,
)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def after(answers: list[tuple[float, ProbeAnswer]], check: TcpCheck = CHECK) -> Tracker:
    tracker = begin(WEB, check, NOON)
    for seconds, answer in answers:
        tracker = answered(tracker, check, answer, at(seconds))
    return tracker


def test_a_new_container_is_starting_and_probed_at_once() -> None:
    tracker = begin(WEB, CHECK, at(0))

    assert (tracker.health, tracker.due) == (Health.STARTING, NOON)


def test_one_pass_is_healthy_and_the_next_probe_is_an_interval_later() -> None:
    tracker = after([(0.5, PASS)])

    assert (tracker.health, tracker.due) == (Health.HEALTHY, at(10.5))


def test_while_starting_it_is_asked_often_but_failures_count_once_per_interval() -> None:
    tracker = after([(second / 10, FAIL) for second in range(100)])

    assert (tracker.health, tracker.failures) == (Health.STARTING, 0)
    assert tracker.due < at(13)
    assert after([(10, FAIL), (15, FAIL), (20, FAIL)]).failures == 2
    assert after([(10, FAIL), (20, FAIL), (30, FAIL)]).health is Health.UNHEALTHY


def test_failures_in_the_start_period_do_not_count() -> None:
    patient = CHECK.model_copy(update={"start_period": 60})

    assert after([(second, FAIL) for second in range(70)], patient).failures == 0
    assert after([(second, FAIL) for second in range(91)], patient).health is Health.UNHEALTHY


def test_retries_failures_in_a_row_make_a_healthy_service_unhealthy_and_a_pass_heals_it() -> None:
    healthy = [(0.0, PASS)]

    assert after([*healthy, (10, FAIL), (20, FAIL)]).health is Health.HEALTHY
    assert after([*healthy, (10, FAIL), (20, FAIL), (30, PASS), (40, FAIL)]).health is Health.HEALTHY
    sick = [*healthy, (10, FAIL), (20, FAIL), (30, FAIL)]
    assert after(sick).health is Health.UNHEALTHY
    assert after(sick).reason == "connection refused"
    assert after([*sick, (40, PASS)]).health is Health.HEALTHY


def test_a_clock_that_was_set_back_does_not_postpone_the_next_probe() -> None:
    tracker = after([(0, PASS)])

    assert not tracker.is_due(CHECK, at(5))
    assert tracker.is_due(CHECK, at(10))
    assert tracker.is_due(CHECK, NOON - timedelta(days=400))


def test_who_says_how_a_service_is() -> None:
    tracker = after([(0, PASS)])
    restarted = Container(**{each: getattr(WEB, each) for each in WEB.__slots__} | {"started_at": at(5)})

    assert health_of(WEB, None, None) is Health.NONE
    assert health_of(WEB, ExecCheck(type="exec", command=["true"]), None) is Health.UNHEALTHY
    assert health_of(WEB, DockerCheck(type="docker"), None) is Health.UNHEALTHY
    assert health_of(WEB, CHECK, None) is Health.STARTING
    assert health_of(WEB, CHECK, tracker) is Health.HEALTHY
    assert health_of(restarted, CHECK, tracker) is Health.STARTING


@given(st.lists(st.tuples(st.floats(0.1, 20), st.booleans()), max_size=50))
def test_unhealthy_always_stands_on_retries_failures_in_a_row(answers: list[tuple[float, bool]]) -> None:
    tracker, seconds, row = begin(WEB, CHECK, NOON), 0.0, 0
    for pause, passed in answers:
        seconds += pause
        row = 0 if passed else row + 1
        tracker = answered(tracker, CHECK, PASS if passed else FAIL, at(seconds))
        assert tracker.due > at(seconds)
        if tracker.health is Health.UNHEALTHY:
            assert row >= CHECK.retries
        if passed:
            assert tracker.health is Health.HEALTHY


def test_a_clock_that_was_set_back_does_not_stop_failures_from_counting() -> None:
    year = 366 * 86_400
    tracker = after([(1, FAIL), *((10 * step - year, FAIL) for step in range(4))])

    assert tracker.health is Health.UNHEALTHY
