"""What the OpenAPI document promises, held against a real server with made-up requests, fitting and not.

The event stream is left out: it has no end. Its refusals are in test_events.py. What fits the schema need
not be accepted: it may still be refused for its meaning, such as services that wait for each other.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from cloud.api.app import describe
from cloud.pki.authority import Authority
from tests.servers.api import RunningApi, api
from tests.servers.mosquitto import Mosquitto

schema = schemathesis.openapi.from_dict(describe().openapi()).exclude(operation_id="follow_events")
schema.config.generation.update(database="none")
schema.config.checks.negative_data_rejection.expected_statuses.append("413")


@pytest.fixture(scope="module")
def target(
    tmp_path_factory: pytest.TempPathFactory, broker: Mosquitto, authority: Authority
) -> Iterator[RunningApi]:
    """A server that only these tests put nonsense into."""
    with api(tmp_path_factory.mktemp("nonsense"), broker, authority) as server:
        for _ in range(3):
            server.device(site="lab")
        yield server


@schema.parametrize()
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_an_operation_keeps_what_its_document_promises(case: Any, target: RunningApi) -> None:
    if isinstance(case.query.get("wait"), int | float):
        case.query["wait"] = min(case.query["wait"], 0)  # nobody answers here, so it would only take time

    case.call_and_validate(
        base_url=target.url,
        headers={"Authorization": f"Bearer {target.key}"},
        excluded_checks=[positive_data_acceptance],
        timeout=20,
    )
