"""The OpenAPI document: every answer and body has an example, and each fits its schema."""

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema_rs import validator_for

from cloud.api.app import describe

DOCUMENT = describe().openapi()


def contents() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in DOCUMENT["paths"].items():
        for verb, operation in operations.items():
            if body := operation.get("requestBody"):
                yield f"{verb} {path} body", body["content"]["application/json"]
            for status, answer in operation["responses"].items():
                if media := answer.get("content", {}).get("application/json"):
                    yield f"{verb} {path} {status}", media


CONTENTS = dict(contents())


@pytest.mark.parametrize("place", CONTENTS)
def test_every_body_and_answer_has_examples_that_fit_its_schema(place: str) -> None:
    media = CONTENTS[place]
    check = validator_for({**media["schema"], "components": DOCUMENT["components"]})

    shown = [each["value"] for each in media.get("examples", {}).values()]
    shown += [media["example"]] if "example" in media else []

    assert shown
    assert [error.message for value in shown for error in check.iter_errors(value)] == []


def test_every_operation_says_what_it_is_for_and_what_can_go_wrong() -> None:
    for path, operations in DOCUMENT["paths"].items():
        for verb, operation in operations.items():
            assert operation["operationId"], (verb, path)
            assert operation["summary"], (verb, path)
            assert operation["tags"], (verb, path)
            assert path.endswith("/health") or "401" in operation["responses"] or "certificates" in path
