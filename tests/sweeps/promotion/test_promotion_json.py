"""``ablate promote json=true``: the promotion, or its comparison, as a document that its schema accepts."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema

from ablations.document_schemas import stored_schema
from tests.conftest import Ablate
from tests.sweeps.promotion.conftest import FULL, MadeStudy


def test_a_promotion_is_a_document(study: MadeStudy, ablate: Ablate) -> None:
    answer = ablate("promote", *FULL, "json=true")
    assert answer.code == 0, answer.err
    document = json.loads(answer.out)
    jsonschema.validate(document, stored_schema("promote"))
    found = document["result"]["promotion"]
    record = json.loads((Path(found["folder"]) / "promotion.json").read_text())
    assert found["candidate"] == record["candidate"]["name"]
    assert found["prediction"] == record["prediction"]
    assert [gate["name"] for gate in found["gates"]] == [g["name"] for g in record["gates"]]
    assert not found["stood"]
    assert len(found["next"]) == 2


def test_the_full_run_that_is_taken_by_default_is_named(study: MadeStudy, ablate: Ablate) -> None:
    named = ablate("promote", *FULL)
    assert named.code == 0, named.err
    assert "the default" not in named.out
    default = ablate("promote", *(word for word in FULL if word != "full=demo_full"))
    assert "the full run is full=demo_full, the default; full=NAME names another one" in default.out


def test_gates_that_stop_a_promotion_are_problems(study: MadeStudy, ablate: Ablate) -> None:
    answer = ablate("promote", *FULL, "promotion.second_study=nothing", "json=true")
    assert answer.code == 2
    document = json.loads(answer.out)
    jsonschema.validate(document, stored_schema("promote"))
    assert document["result"] is None
    assert document["error"]["problems"]
