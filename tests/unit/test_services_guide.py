"""The guide's example is a release, and names every field there is."""

import json
import re
from pathlib import Path

from schemas.desired import Release, ServiceManifest

GUIDE = (Path(__file__).parents[2] / "docs" / "services.md").read_text()


def test_the_example_is_a_release_with_every_field_of_a_manifest() -> None:
    found = re.search(r"```json\n(.*?)```", GUIDE, re.DOTALL)
    assert found is not None

    release = Release.model_validate_json(found[1])

    used = {field for service in json.loads(found[1])["services"] for field in service}
    assert used == set(ServiceManifest.model_fields)
    assert [service.name for service in release.services] == ["store", "migrate", "api"]


def test_the_table_names_every_field() -> None:
    assert {*re.findall(r"^\| `(\w+)` \|", GUIDE, re.MULTILINE)} >= set(ServiceManifest.model_fields)
