"""The sandbox responds as Tavus's OpenAPI document describes."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
import requests

from tavus_provider.sandbox import Sandbox, world

ROOT = Path(__file__).parents[2]

OPENAPI_DOCUMENT = ROOT.parent / "shared" / "tavus-openapi.yaml"


def test_responses_match_the_openapi_document(tavus: Sandbox) -> None:
    if not OPENAPI_DOCUMENT.exists():
        pytest.skip(f"there is no OpenAPI document of Tavus at {OPENAPI_DOCUMENT}")
    schemathesis = pytest.importorskip("schemathesis")
    hypothesis = pytest.importorskip("hypothesis")
    checks = [
        schemathesis.checks.not_a_server_error,
        schemathesis.checks.response_schema_conformance,
        schemathesis.checks.content_type_conformance,
        schemathesis.checks.status_code_conformance,
    ]
    bounded = hypothesis.settings(
        max_examples=5,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    known = {spec.id: [row[spec.id] for row in tavus.state()[kind]] for kind, spec in world.RESOURCES.items()}
    session = requests.Session()
    seen: dict[str, set[int]] = {}

    def check(case: Any) -> None:
        statuses = seen.setdefault(case.operation.label, set())

        def judge(key: str) -> None:
            response = case.call(base_url=tavus.url, session=session, headers={"x-api-key": key})
            statuses.add(response.status_code)
            if response.status_code != 404:  # an id with a slash is a different path
                case.validate_response(response, checks=checks)

        if not statuses:
            judge("wrong")
        judge(tavus.key)
        for name in known.keys() & case.path_parameters.keys():  # repeat with an id that exists
            tavus.reset()
            ids = known[name]
            case.path_parameters[name] = ids[len(case.path_parameters[name]) % len(ids)]
            judge(tavus.key)

    for result in schemathesis.openapi.from_path(OPENAPI_DOCUMENT).get_all_operations():
        for mode in schemathesis.GenerationMode:  # valid and invalid requests
            cases = result.ok().as_strategy(generation_mode=mode)
            with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # no invalid request exists
                bounded(hypothesis.given(cases)(check))()
    assert len(seen) == 14
    assert all(statuses & {200, 204} and 401 in statuses for statuses in seen.values()), seen
