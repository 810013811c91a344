"""Releases that fit together, and hashes that outlive an upgrade."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.config import AgentConfig, Config, ServiceConfig, with_config
from schemas.desired import Release, ServiceManifest, digest_of, find_cycle
from schemas.errors import Unreadable
from schemas.reading import fit

names = st.sampled_from("abcdef")
graphs = st.dictionaries(names, st.lists(names, max_size=4))
env = st.dictionaries(st.from_regex(r"\A[A-E]_[A-C]\Z"), st.text(max_size=3), max_size=5)


def has_cycle(edges: dict[str, list[str]]) -> bool:
    """Return whether some name can be reached from itself: the transitive closure, by brute force."""
    reached = {(start, end) for start, ends in edges.items() for end in ends}
    while more := {(a, d) for a, b in reached for c, d in reached if b == c} - reached:
        reached |= more
    return any(start == end for start, end in reached)


@given(graphs)
def test_a_cycle_is_found_exactly_where_there_is_one(edges: dict[str, list[str]]) -> None:
    circle = find_cycle(edges)

    assert bool(circle) == has_cycle(edges)
    if circle:
        assert circle[0] == circle[-1]
        assert len(set(circle)) == len(circle) - 1
        assert all(end in edges[start] for start, end in pairwise(circle))


def test_a_long_chain_is_no_cycle_and_costs_no_recursion() -> None:
    edges = {str(number): [str(number + 1)] for number in range(5000)}

    assert find_cycle(edges) == []


def a_service(**changes: Any) -> ServiceManifest:
    return ServiceManifest(**{"name": "web", "image": "shop/web:1.2", **changes})


def test_a_fingerprint_stays_the_same_from_version_to_version() -> None:
    """Pinned: a change here would make every device of every fleet recreate its containers."""
    service = ServiceManifest.model_validate(
        {
            "name": "web",
            "image": "shop/web:1.2",
            "env": {"A": "1"},
            "ports": [{"container": 80, "host": 8080}],
            "health": {"type": "http", "port": 80},
            "depends_on": {"db": "healthy"},
        }
    )

    assert service.fingerprint == "sha256:8a7887803f6fbbc118914eb78773f1f448f705fe8ef8347f4f6279ba5315e029"
    assert (
        Release(name="shop", version="1", services=[a_service()]).digest
        == "sha256:365d74406677e550ccc14e667a99247bd75e7e7361f3ccd263f44585f117f68f"
    )


def test_a_new_field_with_a_default_changes_no_fingerprint() -> None:
    class Newer(ServiceManifest):
        priority: int = 5
        sidecars: list[str] = []

    assert digest_of(Newer(name="web", image="shop/web:1.2")) == a_service().fingerprint
    assert digest_of(Newer(name="web", image="shop/web:1.2", priority=6)) != a_service().fingerprint


def test_the_order_of_keys_and_defaults_written_out_change_no_fingerprint() -> None:
    one = a_service(env={"A": "1", "B": "2"}, restart="always", ports=[])
    other = a_service(env={"B": "2", "A": "1"})

    assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"image": "shop/web:1.3"},
        {"env": {"A": "1"}},
        {"command": ["run"]},
        {"stop_grace": 11},
        {"restart": "never"},
    ],
)
def test_what_makes_another_container_makes_another_fingerprint(change: dict[str, Any]) -> None:
    assert a_service(**change).fingerprint != a_service().fingerprint


@pytest.mark.parametrize(
    ("services", "code"),
    [
        ([{"name": "a", "image": "x"}, {"name": "a", "image": "x"}], "manifest.duplicate_service"),
        ([{"name": "a", "image": "x", "depends_on": {"b": "started"}}], "manifest.unknown_dependency"),
        ([{"name": "a", "image": "x", "depends_on": {"a": "started"}}], "manifest.cycle"),
        (
            [{"name": "a", "image": "x"}, {"name": "b", "image": "x", "depends_on": {"a": "healthy"}}],
            "manifest.no_health_check",
        ),
        ([{"name": f"s{number}", "image": "x"} for number in range(101)], "manifest.too_many_services"),
        ([{"name": "a", "image": "x", "ports": [{"container": 0}]}], "port.invalid"),
        ([{"name": "a", "image": "UPPER"}], "value.bad_character"),
        ([{"name": "a", "image": "x", "env": {"fleetline_x": "1"}}], "policy.reserved_name"),
    ],
)
def test_a_release_that_does_not_fit_together_has_its_code(services: list[dict[str, Any]], code: str) -> None:
    with pytest.raises(Unreadable) as caught:
        fit(Release, {"name": "shop", "version": "1", "services": services})

    assert caught.value.code == code


@given(env, env)
def test_configured_environment_wins_over_the_manifests(own: dict[str, str], given_: dict[str, str]) -> None:
    service = a_service(env=own)
    config = Config(version=1, services={"web": ServiceConfig(env=given_)})

    configured = with_config(service, config)

    assert configured.env == {**own, **given_}
    assert configured.model_copy(update={"env": own}) == service
    assert with_config(configured, config) == configured
    assert service.env == own


@given(env)
def test_configuration_of_another_service_or_of_the_agent_changes_no_service(given_: dict[str, str]) -> None:
    config = Config(agent=AgentConfig(telemetry_interval=1), services={"db": ServiceConfig(env=given_)})

    assert with_config(a_service(), config) == a_service()
    assert with_config(a_service(), config).fingerprint == a_service().fingerprint


def publishing(*ports: dict[str, Any]) -> dict[str, Any]:
    services = [
        {"name": f"s{number}", "image": "a:1", "ports": [{"container": 80, **port}]}
        for number, port in enumerate(ports)
    ]
    return {"name": "shop", "version": "1", "services": services}


@pytest.mark.parametrize(
    "ports",
    [
        [{"host": 8080}, {"host": 8080}],
        [{"host": 8080, "address": "0.0.0.0"}, {"host": 8080, "address": "127.0.0.2"}],
        [{"host": 8080, "address": "::1"}, {"host": 8080, "address": "::"}],
    ],
)
def test_two_services_never_publish_one_port(ports: list[dict[str, Any]]) -> None:
    with pytest.raises(Unreadable, match=r"port\.in_use: .*'s0' and 's1' both publish port 8080/tcp"):
        fit(Release, publishing(*ports))


def test_one_port_number_on_other_addresses_or_protocols_is_fine() -> None:
    ports: list[dict[str, Any]] = [
        {"host": 8080},
        {"host": 8080, "address": "127.0.0.2"},
        {"host": 8080, "address": "::"},
        {"host": 8080, "protocol": "udp"},
        {},
        {},
    ]

    assert len(fit(Release, publishing(*ports)).services) == len(ports)


@pytest.mark.parametrize("address", ["999.1.1.1", "1:2:3", ":::"])
def test_what_looks_like_an_address_but_is_none_is_refused(address: str) -> None:
    with pytest.raises(Unreadable, match=r"value\.out_of_range: .*is not an IP address"):
        fit(Release, publishing({"host": 80, "address": address}))
