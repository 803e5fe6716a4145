"""Policy files and legal-hold files: what is accepted, and what each error message says."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from airflow.configuration import AIRFLOW_HOME

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.retention.policy import LegalHolds, Policy
from tavus_provider.storage.policy_files import find_policy_problems, read_legal_holds, read_policy

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
POLICY = {
    "name": "stale \N{GRINNING FACE}",
    "expire": [{"rule": "old", "older_than": "90d", "grace": "14d"}],
    "scope": {"exclude": ["\N{GRINNING FACE}*"]},
    "legal_holds": {"file": "/holds.yaml", "max_age": "2d"},
    "account": {"expect_present": ["r1"]},
    "hard_delete_after": "30d",
}
YAML = """
# what may go
name: "stale \N{GRINNING FACE}"
expire:
  - {rule: old, older_than: 90d, grace: 14d}
scope: {exclude: ["\N{GRINNING FACE}*"]}
legal_holds: {file: /holds.yaml, max_age: 2d}
account:
  expect_present: [r1]
hard_delete_after: 30d
"""


@pytest.fixture
def file(tmp_path):
    """Write a file and return where it is: ``file(content)``."""

    def write(content, name="a policy.yaml"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def error_of(function, *arguments, **keywords):
    with pytest.raises(TavusValidationError) as caught:
        function(*arguments, **keywords)
    message = str(caught.value)
    assert message.isprintable()
    return message


# -- a policy


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(YAML, id="yaml"),
        pytest.param(YAML.replace("\n", "\r\n"), id="yaml-with-crlf"),
        pytest.param("\ufeff" + YAML, id="with-a-byte-order-mark"),
        pytest.param(json.dumps(POLICY), id="json-in-ascii"),
        pytest.param(json.dumps(POLICY, ensure_ascii=False, indent=2), id="json"),
        pytest.param(json.dumps(POLICY, indent="\t"), id="json-with-tabs"),
    ],
)
@pytest.mark.parametrize("name", ["p.yaml", "p.json", "no extension"])
def test_policy_is_read_from_yaml_and_json(file, content, name):
    assert read_policy(file(content, name)) == Policy.parse(POLICY)


def test_policy_is_read_from_a_url(file):
    assert read_policy(f"file://{file(YAML)}") == Policy.parse(POLICY)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(b"", "must be a mapping with keys of name, expire", id="empty"),
        pytest.param("# nothing\n", "hard_delete_after, overdue_after, limits, not None", id="comment-only"),
        pytest.param("just text", "hard_delete_after, overdue_after, limits, not 'just text'", id="text"),
        pytest.param("- a\n- b", "hard_delete_after, overdue_after, limits, not a list", id="list"),
        pytest.param("{}", "expire: is missing", id="no-rule"),
        pytest.param("expire: []", "expire: must not be empty; name at least one", id="no-rules"),
        pytest.param(
            "expire: [{older_than: 90}]", "expire.0.older_than: 90 has no unit; write 90d", id="unit"
        ),
        pytest.param(
            "expire: [{older_than: }]",
            "expire.0.older_than: must be one number and one unit such as 90d (units: y, w, d, h, "
            "min), not None",
            id="blank",
        ),
        pytest.param(
            "expire: [{older_than: ''}]",
            "expire.0.older_than: must be one number and one unit such as 90d (units: y, w, d, h, "
            "min), not ''",
            id="empty-text",
        ),
        pytest.param(
            "expire: [{older_than: soon}]",
            "expire.0.older_than: must be one number and one unit such as 90d (units: y, w, d, h, min), "
            "not 'soon'",
            id="soon",
        ),
        pytest.param(
            "expire: [{older_than: 90d}]\nkepe: {}", "unknown key 'kepe'; known: name", id="unknown"
        ),
        pytest.param(
            "expire: [{older_than: 90d}]\nkeep: {protected: [r1]}", "keep: unknown key 'protected'", id="deep"
        ),
        pytest.param(
            "expire: [{older_than: 90d}]\nkeep: {protected_ids: [123456]}",
            "keep.protected_ids.0: must be a replica id such as 'rf4e9d9790f0', not 123456",
            id="number-as-id",
        ),
        pytest.param(
            "expire: [{older_than: 90d}]\nlimits: {max_deletions: -1}",
            "limits.max_deletions: must be >= 0, not -1",
            id="limit",
        ),
        pytest.param(
            "expire: [{older_than: 90d, grace: 14d}]",
            "name: is missing; with grace it is required: the schedule is stored under it",
            id="no-name",
        ),
        pytest.param(
            "expire: [{older_than: 90d}]\nkeep: {}\nkeep: {protected_ids: [r1]}",
            "line 3, column 1: duplicate key 'keep'",
            id="key-twice",
        ),
        pytest.param(
            '{"expire": [{"older_than": "90d"}], "keep": {}, "keep": {}}',
            "duplicate key 'keep'",
            id="key-twice-in-json",
        ),
        pytest.param("a: b: c", "line 1, column 5: mapping values are not allowed here", id="not-yaml"),
        pytest.param("expire: [", "line 1, column 10: expected the node content", id="cut"),
        pytest.param('{"expire": [', "line 1, column 13: expected the node content", id="json-cut"),
        pytest.param("a: !!python/object/apply:os.system [x]", "could not determine a constructor", id="tag"),
        pytest.param("a: 1\n---\nb: 2", "line 2, column 1: but found another document", id="two-documents"),
        pytest.param("? [a, b]\n: c", "line 1, column 3: found unhashable key", id="list-as-key"),
        pytest.param("? {a: b}\n: c", "line 1, column 3: found unhashable key", id="mapping-as-key"),
        pytest.param("at: 2026-13-45", "is not YAML or JSON", id="invalid-date"),
        pytest.param("[" * 100_000, "is not YAML or JSON", id="nested"),
        *(
            pytest.param(text, "is not YAML or JSON", id=text)
            for text in ("a: !!int ''", "a: !!float ''", "a: !!bool x", "a: !!timestamp x", "!!map [a, b]")
        ),
        pytest.param('{"a": NaN}', "unknown key 'a'", id="nan"),
        pytest.param(b"name: \xff", "is not text in UTF-8", id="latin-1"),
        pytest.param(YAML.encode("utf-16"), "is not text in UTF-8", id="utf-16"),
        pytest.param("a: \x00", "is not YAML", id="nul"),
        pytest.param(b"#" * (2**20 + 1), "cannot be read (larger than 1,048,576 bytes)", id="large"),
        pytest.param(
            "expire: [{rule: a, older_than: 90d}, {rule: b, older_than: 180d}]",
            "expire.1: rule 'b' has no effect, because rule 'a' before it matches every replica that it "
            "matches",
            id="rule-without-effect",
        ),
        pytest.param(
            "expire: [{older_than: 90d}]\nscope: {include: ['a*'], exclude: ['a*']}",
            "scope: exclude covers everything that include names, so no rule can match",
            id="nothing-in-scope",
        ),
        pytest.param(
            "expire: [{older_than: 90d, status: [errror]}]",
            "expire.0.status.0: must be 'started', 'completed' or 'error', not 'errror'",
            id="unknown-status",
        ),
    ],
)
def test_error_names_the_file_and_the_place_in_it(file, content, problem):
    location = file(content)
    message = error_of(read_policy, location)
    assert message.startswith(f"policy {location}: ")
    assert problem in message
    assert len(message) < len(location) + 400


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("/no/such/file.yaml", "cannot be read (No such file or directory)"),
        ("", "cannot be read ("),
        ("odd://bucket/policy.yaml", "cannot be read (no storage is installed for odd://;"),
        ("a\nb.yaml", "cannot be read (No such file or directory)"),
        ("\x00", "cannot be read ("),
    ],
)
def test_unreadable_policy_is_named(location, reason):
    message = error_of(read_policy, location)
    assert message.startswith("policy ")
    assert reason in message


def test_relative_policy_is_in_airflow_home_or_in_the_base(file, monkeypatch, tmp_path):
    file(YAML, "p.yaml")
    monkeypatch.chdir(tmp_path)
    assert read_policy("p.yaml", base=str(tmp_path)) == Policy.parse(POLICY)
    assert find_policy_problems("p.yaml", base=str(tmp_path)) == []
    for function in (read_policy, find_policy_problems):
        assert error_of(function, "p.yaml") == (
            f"policy {AIRFLOW_HOME}/p.yaml: cannot be read (No such file or directory)"
        )
        assert f"policy {tmp_path}/x/p.yaml: " in error_of(function, "p.yaml", base=f"{tmp_path}/x")


def test_folder_is_not_a_policy(tmp_path):
    assert error_of(read_policy, str(tmp_path)) == f"policy {tmp_path}: cannot be read (Is a directory)"


def test_yaml_alias_is_accepted_unless_it_contains_itself(file):
    read = read_policy(file("expire: [&r {rule: a, older_than: 90d}, {<<: *r, rule: b, older_than: 9d}]"))
    assert [(rule.rule, str(rule.older_than)) for rule in read.expire] == [("a", "90d"), ("b", "9d")]
    assert "expire.0" in error_of(read_policy, file("expire: &a [*a]"))


# -- legal holds


def holds(location, max_age="2d"):
    return LegalHolds(file=location, max_age=max_age)


def dated(content, file, age=timedelta(0)):
    location = file(content, "holds")
    moment = (NOW - age).timestamp()
    os.utime(location, (moment, moment))
    return location


@pytest.mark.parametrize(
    ("content", "held"),
    [
        pytest.param("[r1, r2]", {"r1", "r2"}, id="list"),
        pytest.param("- r1\n- r2\n- r1\n...\n", {"r1", "r2"}, id="lines and an end marker"),
        pytest.param("count: 2\nreplica_ids:\n- r1\n- r2\n", {"r1", "r2"}, id="lines and their count"),
        pytest.param(
            "replica_ids:\n  - r1\nas_of: 2026-09-01T11:00:00Z\n...", {"r1"}, id="mapping and marker"
        ),
        pytest.param('{"count": 1,\t"replica_ids": ["r1"]}', {"r1"}, id="json with a tab"),
        pytest.param('["r1"]', {"r1"}, id="json"),
        pytest.param("[]", set(), id="empty"),
        pytest.param("replica_ids: [r1]\nas_of: 2026-09-01T11:00:00Z", {"r1"}, id="as-of"),
        pytest.param(
            "replica_ids: [r1]\nas_of: 2026-09-01T13:00:00+02:00", {"r1"}, id="as-of-in-another-zone"
        ),
        pytest.param('{"replica_ids": ["r1"], "as_of": "2026-08-31T11:00:00Z"}', {"r1"}, id="as-of-text"),
        pytest.param("replica_ids: [r1]", {"r1"}, id="mapping"),
        pytest.param(
            "replica_ids: [r1]\nas_of: 2026-09-01T12:04:59Z", {"r1"}, id="as-of-slightly-in-the-future"
        ),
    ],
)
def test_held_ids_are_read_from_a_list_or_a_mapping(file, content, held):
    assert read_legal_holds(holds(dated(content, file)), now=NOW) == held


AS_OF = "replica_ids: [r1]\nas_of: "


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(
            AS_OF + "2026-08-30T11:59:59Z",
            "as of 2026-08-30 11:59 UTC, 2 days ago, max_age is 2d",
            id="too-old",
        ),
        pytest.param(
            AS_OF + "2026-09-01T12:05:01Z", "as of 2026-09-01 12:05 UTC, which is in the future", id="ahead"
        ),
        pytest.param(
            AS_OF + "2026-09-01T11:00:00", "has no time zone: write 2026-09-01T11:00:00Z", id="no-zone"
        ),
        pytest.param(
            AS_OF + "2026-09-01", "as_of 2026-09-01 has no time zone: write 2026-09-01T00:00:00Z", id="day"
        ),
        pytest.param(AS_OF + "yesterday", "write a date with a time zone such as", id="word"),
        pytest.param(AS_OF, "write a date with a time zone such as", id="blank"),
        pytest.param(
            AS_OF + "0001-01-01T00:00:00+14:00", "is not an ISO 8601 or RFC 1123 date: write", id="year-0"
        ),
        pytest.param(AS_OF + "1788264000", "write a date with a time zone such as", id="number"),
        pytest.param("", "must be a list of ids, or a mapping with replica_ids", id="empty"),
        pytest.param("replica_ids:", "must be a list of ids, or a mapping with replica_ids", id="null"),
        pytest.param("replica_ids: r1", "must be a list of ids, or a mapping with replica_ids", id="text"),
        pytest.param("{r1: held}", "must be a list of ids, or a mapping with replica_ids", id="ids-as-keys"),
        pytest.param("r1", "must be a list of ids, or a mapping with replica_ids", id="word"),
        pytest.param(
            "replica_ids: [r1]\nuntil: 2027",
            "unknown key 'until'; known: replica_ids, as_of, count",
            id="key",
        ),
        pytest.param("[r1, 'r 2']", "replica_id: 'r 2' is not a replica id", id="invalid-id"),
        pytest.param("[r1, 12345]", "replica_id: ", id="number-as-id"),
        pytest.param("[r1, none]", "replica_id: ", id="none"),
        pytest.param("[r1, [r2]]", "replica_id: ", id="list-as-id"),
        pytest.param("[r1, ", "line 1, column 6", id="cut"),
        pytest.param("- r1\n- r2\n", "one id a line and nothing shows that it is complete", id="lines"),
        pytest.param(
            "replica_ids:\n- r1\n", "or end the file with a line of three dots", id="lines-of-mapping"
        ),
        pytest.param("count: 2\nreplica_ids: [r1]", "count is 2, but the list has 1 ids", id="count"),
        pytest.param(
            "count: '1'\nreplica_ids: [r1]", "count is '1', but the list has 1 ids", id="count-text"
        ),
        pytest.param(
            "count: true\nreplica_ids: [r1]", "count is True, but the list has 1 ids", id="count-bool"
        ),
        pytest.param(b"- r1\n- \xe4", "is not text in UTF-8", id="latin-1"),
    ],
)
def test_invalid_legal_holds_are_an_error(file, content, problem):
    location = dated(content, file)
    message = error_of(read_legal_holds, holds(location), now=NOW)
    assert message.startswith(f"legal_holds {location}: ")
    assert problem in message
    assert message.endswith("; it is not known which replicas are held, so nothing may be deleted")


IDS = [f"r{number:03}a" for number in range(12)]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("".join(f"- {one}\n" for one in IDS) + "...\n", id="lines and an end marker"),
        pytest.param("count: 12\nreplica_ids:\n" + "".join(f"- {one}\n" for one in IDS), id="count first"),
        pytest.param(
            "replica_ids:\n" + "".join(f"  - {one}\n" for one in IDS) + "count: 12\n", id="count last"
        ),
        pytest.param(f"[{', '.join(IDS)}]\n", id="brackets"),
        pytest.param(json.dumps({"replica_ids": IDS, "count": 12}, indent=1), id="json"),
    ],
)
def test_list_cut_anywhere_is_rejected_or_complete(file, content):
    assert read_legal_holds(holds(dated(content, file)), now=NOW) == set(IDS)
    for end in range(len(content)):
        location = dated(content[:end], file)
        try:
            held = read_legal_holds(holds(location), now=NOW)
        except TavusValidationError:
            continue
        assert held == set(IDS), end


def test_legal_holds_of_a_policy_file_are_beside_it(file):
    location = file("expire: [{older_than: 90d}]\nlegal_holds: {file: lists/holds.json, max_age: 1d}")
    found = read_policy(location).legal_holds
    assert found is not None
    assert found.file == str(Path(location).parent / "lists" / "holds.json")


@pytest.mark.parametrize(("age", "accepted"), [(0, True), (2, True), (2.001, False), (-1, False)])
def test_time_of_the_file_is_used_without_as_of(file, age, accepted):
    location = dated("[r1]", file, timedelta(days=age))
    if accepted:
        assert read_legal_holds(holds(location), now=NOW) == {"r1"}
    else:
        assert " UTC, " in error_of(read_legal_holds, holds(location), now=NOW)


def test_missing_legal_holds_are_an_error(tmp_path):
    message = error_of(read_legal_holds, holds(str(tmp_path / "none")), now=NOW)
    assert "cannot be read (No such file or directory); it is not known which replicas are held" in message
    assert "Is a directory" in error_of(read_legal_holds, holds(str(tmp_path)), now=NOW)


def test_relative_legal_holds_are_in_airflow_home(monkeypatch, tmp_path):
    name = f"holds-{tmp_path.name}.yaml"
    (tmp_path / name).write_text("[r1]")
    monkeypatch.chdir(tmp_path)
    assert error_of(read_legal_holds, holds(name), now=NOW).startswith(f"legal_holds {AIRFLOW_HOME}/{name}: ")
    (Path(AIRFLOW_HOME) / name).write_text("{replica_ids: [r2], as_of: 2026-09-01T11:00:00Z}")
    assert read_legal_holds(holds(name), now=NOW) == {"r2"}


def test_as_of_is_required_if_the_storage_has_no_times(monkeypatch):
    import fsspec
    from airflow.sdk.io import attach

    fs = fsspec.filesystem("memory")
    monkeypatch.delattr(type(fs), "modified")
    attach("memory", fs=fs)
    fs.pipe_file("/holds/list", b"[r1]")
    fs.pipe_file("/holds/dated", b"{replica_ids: [r1], as_of: 2026-09-01T11:00:00Z}")
    message = error_of(read_legal_holds, holds("memory://holds/list"), now=NOW)
    assert "its storage does not record when it was written: add as_of to it" in message
    assert read_legal_holds(holds("memory://holds/dated"), now=NOW) == {"r1"}


def test_credentials_in_a_location_are_not_shown():
    location = "s3://AKIAXXX:hunter2-word@bucket/policy.yaml"
    for message in (error_of(read_policy, location), error_of(find_policy_problems, location)):
        assert "hunter2-word" not in message
        assert "//***@bucket/policy.yaml" in message
    message = error_of(read_legal_holds, LegalHolds(file=location, max_age="1d"), now=NOW)
    assert "hunter2-word" not in message


def test_policy_without_legal_holds_holds_nothing():
    assert read_legal_holds(None, now=NOW) == frozenset()
