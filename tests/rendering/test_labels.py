from __future__ import annotations

from pathlib import Path

from tavus_provider.outcomes import GONE, Outcome
from tavus_provider.rendering.labels import OUTCOMES, STATUSES, label, labels_json
from tavus_provider.retention.checks import CHECKS

WWW = Path(__file__).parents[2] / "tavus_provider" / "plugins" / "www"


def test_every_status_and_outcome_has_a_label():
    assert set(STATUSES) == {check.status for check in CHECKS}
    assert set(OUTCOMES) == set(Outcome)


def test_labels_are_unique():
    texts = [row.text for row in (*STATUSES.values(), *OUTCOMES.values())]
    assert len(set(texts)) == len(texts)


def test_only_expired_is_labelled_as_a_delete():
    assert [name for name, row in STATUSES.items() if row.group == "to delete"] == ["expired"]
    assert {name for name, row in OUTCOMES.items() if row.group == "deleted"} == GONE


def test_unknown_name_is_shown_as_it_is():
    assert label("put_aside").text == "put aside"


def test_labels_json_of_the_page_is_up_to_date():
    """If this fails: python -m tavus_provider.rendering.labels > tavus_provider/plugins/www/labels.json"""
    assert (WWW / "labels.json").read_text(encoding="utf-8") == labels_json()
