"""What a configuration makes of a manifest."""

from schemas.config import Config, ServiceConfig, with_config
from schemas.desired import ServiceManifest


def test_a_service_with_other_environment_has_another_fingerprint_even_if_the_first_was_asked_for() -> None:
    manifest = ServiceManifest(name="web", image="shop/web:1", env={"A": "1"})
    before = manifest.fingerprint

    merged = with_config(manifest, Config(services={"web": ServiceConfig(env={"B": "2"})}))

    assert merged.env == {"A": "1", "B": "2"}
    assert merged.fingerprint != before
    assert merged.fingerprint == ServiceManifest.model_validate(merged.model_dump()).fingerprint
