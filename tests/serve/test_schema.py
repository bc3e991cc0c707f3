"""The API keeps what its OpenAPI document promises, for requests that fit it and for requests that do not."""

from __future__ import annotations

import json

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

import rushes
from rushes.serve.app import create_app
from rushes.serve.limits import Limits
from rushes.serve.openapi import ALWAYS
from rushes.serve.problems import KINDS
from tests.serve.conftest import served
from tests.serve.wire import request, say

LIMITS = Limits(rate=1e6, burst=1e6)
EXAMPLES = 5  # of each operation


@pytest.fixture(scope="module")
def live(library):
    with served(library, limits=LIMITS) as live:
        say(live.host, live.port, request("GET", "/v1/library"))
        yield live


@schemathesis.check
def fits_is_taken(ctx, response, case) -> None:
    """What fits the document is never said not to fit, though it may ask for something that is not there."""
    if case.meta.generation.mode.is_positive and response.status_code in (400, 413, 415, 422):
        assert response.json()["code"] not in ("invalid", "bad-request", "wrong-type", "too-large"), response.text


@schemathesis.check
def problems_are_told(ctx, response, case) -> None:
    """Every refusal is a problem with a code that docs/serve.md lists."""
    if response.status_code >= 400:
        assert KINDS[response.json()["code"]].status == response.status_code


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_as_promised(live, mode):
    load_all_checks()
    count = 0
    session = requests.Session()
    for found in schemathesis.openapi.from_dict(live.app.openapi()).get_all_operations():
        operation = found.ok()
        if mode.is_negative and not (operation.body or list(operation.iter_parameters())):
            continue  # nothing that could be wrong
        count += 1

        @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def promise(case):
            case.call_and_validate(
                base_url=live.url,
                session=session,
                additional_checks=[fits_is_taken, problems_are_told],
                # whether what is asked for is there is no matter of the schema: fits_is_taken says what is
                excluded_checks=[CHECKS.get_one("positive_data_acceptance")],
                timeout=60,
            )

        promise()
    assert count >= 15


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    return create_app(rushes.open(tmp_path_factory.mktemp("empty"))).openapi()


def test_every_operation_promises_its_refusals(document):
    assert document["openapi"].startswith("3.1")
    count = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            count += 1
            answers = operation["responses"]
            for status in ALWAYS:
                assert str(status) in answers, f"{method} {path} does not tell of {status}"
            if "parameters" in operation or "requestBody" in operation:
                assert "422" in answers
            for status, answer in answers.items():
                if int(status) >= 400:
                    assert list(answer["content"]) == ["application/problem+json"]
    assert count >= 25
    names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))


def test_every_code_belongs_to_a_status_that_is_promised(document):
    promised = {
        int(status)
        for methods in document["paths"].values()
        for operation in methods.values()
        for status in operation["responses"]
    }
    # 405 is what an operation gets that is not there, so no operation can promise it
    assert {kind.status for kind in KINDS.values()} - {405} <= promised


def test_the_document_is_what_the_server_gives(live):
    assert json.loads(say(live.host, live.port, request("GET", "/openapi.json")).body) == live.app.openapi()
