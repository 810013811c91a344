"""When a service needs a new container."""

from schemas.config import Config, ServiceConfig, with_config
from schemas.desired import ServiceManifest

WEB = ServiceManifest(name="web", image="shop/web:1", env={"A": "1"})


def test_configured_environment_changes_the_fingerprint_even_after_it_was_read() -> None:
    before = WEB.fingerprint

    changed = with_config(WEB, Config(services={"web": ServiceConfig(env={"A": "2"})}))

    assert changed.fingerprint != before


def test_writing_a_default_out_changes_nothing() -> None:
    assert WEB.model_copy(update={"stop_grace": 10}).fingerprint == WEB.fingerprint
