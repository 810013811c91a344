"""The `fleet` command: how it reads words, shows numbers, judges a machine, and refuses."""

import re
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import cast

import pytest
from rich.console import Console
from typer.testing import CliRunner

from cloud.cli.doctor import Verdict, judge_certificate, judge_disk, judge_mosquitto
from cloud.cli.exits import Exit
from cloud.cli.main import app
from cloud.cli.metrics import sparkline
from cloud.cli.output import ago, bytes_word, pairs
from cloud.cli.pairs import arguments_of, labels_of
from schemas.errors import ErrorCode

ROOT = Path(__file__).resolve().parents[2]
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CliRunner:
    for name in ("FLEETLINE_URL", "FLEETLINE_API_KEY", "FLEETLINE_STACK_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return CliRunner()


def test_words_become_numbers_and_flags_where_json_has_them_and_stay_text_otherwise() -> None:
    words = ["service=web", "tail=5", "follow=true", "since=2026-01-31T12:00:00Z", "echo={not json", "empty="]

    assert arguments_of(words) == {
        "service": "web",
        "tail": 5,
        "follow": True,
        "since": "2026-01-31T12:00:00Z",
        "echo": "{not json",
        "empty": "",
    }


def test_a_label_stays_text_even_if_it_looks_like_a_number() -> None:
    assert labels_of(["floor=3"]) == {"floor": "3"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s ago"), (12, "12 s ago"), (90, "2 min ago"), (7200, "2 h ago"), (200_000, "2 d ago")],
)
def test_times_are_told_as_people_do(seconds: int, text: str) -> None:
    assert ago((NOON - timedelta(seconds=seconds)).isoformat(), NOON) == text


def test_sizes_are_told_as_people_do() -> None:
    assert [bytes_word(number) for number in (0, 1023, 1536, 5 * 2**30)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 GiB",
    ]


def test_a_sparkline_goes_from_lowest_to_highest_and_a_flat_one_stays_low() -> None:
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8]) == "▁▂▃▄▅▆▇█"
    assert sparkline([5, 5, 5]) == "▁▁▁"
    assert sparkline([]) == ""


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        (None, Verdict.WARNING),
        ((2, 0, 11), Verdict.FAILED),
        ((2, 0, 18), Verdict.OK),
        ((2, 1, 0), Verdict.OK),
    ],
)
def test_an_old_broker_is_named_as_a_fault(version: tuple[int, ...] | None, verdict: Verdict) -> None:
    assert judge_mosquitto(version).verdict is verdict


@pytest.mark.parametrize(
    ("left", "verdict"),
    [
        (timedelta(days=-1), Verdict.FAILED),
        (timedelta(days=3), Verdict.WARNING),
        (timedelta(days=300), Verdict.OK),
    ],
)
def test_a_certificate_is_judged_by_what_is_left_of_it(left: timedelta, verdict: Verdict) -> None:
    assert judge_certificate("broker", NOON + left, NOON).verdict is verdict


def test_little_disk_is_a_warning() -> None:
    assert judge_disk(10**6).verdict is Verdict.WARNING
    assert judge_disk(10**12).verdict is Verdict.OK


def test_without_a_stack_every_remote_verb_says_how_to_get_one(runner: CliRunner) -> None:
    for verb in (["devices"], ["status", "x"], ["events"], ["keys", "list"], ["metrics", "x"]):
        done = runner.invoke(app, verb)

        assert done.exit_code == Exit.UNREACHABLE, verb
        assert "api.unknown" in done.output
        assert "fleet up" in done.output


def test_a_server_that_does_not_answer_is_named(runner: CliRunner) -> None:
    done = runner.invoke(app, ["devices", "--url", "http://127.0.0.1:9/api/v1", "--key", "k"])

    assert done.exit_code == Exit.UNREACHABLE
    assert "api.unreachable: http://127.0.0.1:9/api/v1" in done.output.replace("\n", "")


def test_ending_what_never_was_is_not_found(runner: CliRunner) -> None:
    done = runner.invoke(app, ["down", "--data-dir", "nowhere"])

    assert done.exit_code == Exit.NOT_FOUND
    assert "stack.unknown" in done.output


def test_exported_schemas_are_up_to_date_with_the_models_and_drift_is_found(
    runner: CliRunner, tmp_path: Path
) -> None:
    assert runner.invoke(app, ["schemas", "export", "--to", str(tmp_path)]).exit_code == 0
    assert runner.invoke(app, ["schemas", "export", "--to", str(tmp_path), "--check"]).exit_code == 0
    (tmp_path / "asyncapi.json").write_text("{}")

    done = runner.invoke(app, ["schemas", "export", "--to", str(tmp_path), "--check"])

    assert done.exit_code == Exit.FAILED
    assert "schemas.drift: asyncapi.json" in done.output


def test_every_verb_explains_itself(runner: CliRunner) -> None:
    verbs = [
        "up",
        "down",
        "demo",
        "devices",
        "status",
        "deploy",
        "command",
        "logs",
        "metrics",
        "events",
        "doctor",
        "config",
    ]
    for verb in verbs:
        assert runner.invoke(app, [verb, "--help"]).exit_code == 0, verb


def test_ending_a_stack_leaves_a_directory_alone_that_never_was_one(
    runner: CliRunner, tmp_path: Path
) -> None:
    (tmp_path / "letter").write_text("dear", "utf-8")

    done = runner.invoke(app, ["down", "--purge", "--data-dir", str(tmp_path)])

    assert done.exit_code == Exit.NOT_FOUND
    assert (tmp_path / "letter").read_text("utf-8") == "dear"


def test_a_config_without_a_change_is_refused_before_it_is_sent(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEETLINE_URL", "http://127.0.0.1:1/api/v1")
    monkeypatch.setenv("FLEETLINE_API_KEY", "flk_x_y")

    done = runner.invoke(app, ["config", "--selector", "site=lab"])

    assert done.exit_code == Exit.USAGE
    assert "--agent, --env or --file" in done.output


def test_the_doctor_looks_where_the_docker_command_would(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")

    done = runner.invoke(app, ["doctor", "--json"])

    assert f"no daemon at {tmp_path}/nobody.sock" in done.stdout


def test_names_of_facts_stay_whole_in_a_narrow_console() -> None:
    console = Console(width=30, file=StringIO())

    console.print(pairs([("certificate", "a long explanation that has to be folded")]))

    assert "certificate" in cast("StringIO", console.file).getvalue()


def test_every_code_the_command_itself_prints_is_documented() -> None:
    page = (ROOT / "docs" / "fleet.md").read_text("utf-8")
    sources = [path.read_text("utf-8") for path in (ROOT / "cloud" / "cli").glob("*.py")]

    printed = {code for text in sources for code in re.findall(r'stop\(\s*Exit\.\w+,\s*"([a-z_.]+)"', text)}

    assert printed
    assert {code for code in printed if code not in set(ErrorCode) and f"`{code}`" not in page} == set()
