"""The page of a certificate: complete, escaped, and printable."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from planning.test_erasure import ITEMS, NOW, make

from tavus_provider.outcomes import Outcome
from tavus_provider.planning.certificate import Evidence, erased_keys, make_certificate
from tavus_provider.planning.erasure_report import LISTS, Look, State
from tavus_provider.planning.erasure_request import Ground
from tavus_provider.rendering.certificate import certificate_page
from tavus_provider.rendering.erasure import GROUNDS, STATES

HOSTILE = "<script>alert(1)</script>"
ALL = dict.fromkeys(LISTS, True)


def certify(plan=None, **evidence):
    plan = plan or make()
    keys = [row["key"] for row in plan["delete"]]
    default = {
        "outcomes": dict.fromkeys(keys, Outcome.DELETED),
        "accepted": frozenset(keys),
        "look": Look(asked=dict.fromkeys(keys, "not_found"), listings=ALL),
    }
    return make_certificate(
        plan,
        Evidence(**default | evidence),
        number=3,
        run={"dag_id": "tavus_erase_person", "run_id": "manual__1"},
        versions={"airflow-provider-tavus": "0.1.0"},
        made_at=NOW,
    )


class Text(HTMLParser):
    """The texts and the tags of a page."""

    def __init__(self, page):
        super().__init__()
        self.texts, self.tags = [], []
        self.feed(page)

    def handle_data(self, data):
        self.texts.append(data)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)


def test_page_says_what_was_seen():
    text = " ".join(Text(certificate_page(certify())).texts)
    for expected in ("DSR-1", "Complete", "2026-12-01", "3 days before the due date", "GDPR Art. 17", *ITEMS):
        assert expected in text
    assert "backups and CDN copies of Tavus" in text


def test_page_needs_nothing_else_and_is_a4():
    page = certificate_page(certify())
    tags = set(Text(page).tags)
    assert not tags & {"script", "img", "link", "iframe", "form", "a"}
    assert "@page { size: A4;" in page
    assert "http" not in page.replace("http-equiv", "").replace("https&#58;", "").replace(
        "https://tavusapi.com", ""
    )


@pytest.mark.parametrize("field", ["request", "approved_by", "row", "persona"])
def test_text_from_outside_is_escaped(field):
    certificate = certify()
    changed = {
        "request": {"request": HOSTILE},
        "approved_by": {
            "approvals": [
                {"plan_digest": "", "shown_digest": "", "approved_by": HOSTILE, "approved_at": "2026-11-28"}
            ]
        },
        "row": {"undetermined": [HOSTILE]},
        "persona": {"references": [{"persona_id": HOSTILE, "replica_id": "r1"}]},
    }[field]
    page = certificate_page({**certificate, **changed})
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_page_has_at_most_two_pages_before_the_annex(tmp_path):
    """With everything that can be open, refused or undetermined. Needs a browser that prints to PDF."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium")
    undetermined = {f"conversation/c{n:015x}": "names no replica" for n in range(900)}
    plan = make([f"c{n}" for n in range(2)], undetermined=undetermined, undetermined_count=5_000)
    look = Look(
        asked={"r1": "found", "video/v1": "unknown"},
        listings={},
        still_listed=frozenset({"video/v1"}),
        found=frozenset(f"video/v{n}" for n in range(50)),
        undetermined=frozenset(f"conversation/c{n:030x}" for n in range(900)),
        references=tuple({"persona_id": f"p{n}", "replica_id": "r1"} for n in range(50)),
    )
    approvals = [
        {"plan_digest": "0", "shown_digest": "0", "approved_by": "a" * 40, "approved_at": "2026-11-28T10:00"}
    ]
    page = certificate_page(certify(plan, look=look, approvals=approvals * 5))
    front = page.partition('<section class="annex">')[0] + "</body></html>"
    (tmp_path / "front.html").write_text(front, encoding="utf-8")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    pdf = tmp_path / "front.pdf"
    subprocess.run(
        [*command, f"--print-to-pdf={pdf}", str(tmp_path / "front.html")], capture_output=True, check=True
    )
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf.read_bytes())) <= 2


def test_every_ground_and_state_has_words():
    assert set(GROUNDS) == set(Ground)
    assert set(STATES) == set(State)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"asked": {"r1": "found"}}, "Tavus still returns it"),
        ({"asked": {"r1": "unknown"}}, "It is not known whether it exists"),
        ({"still_listed": frozenset({"r1"})}, "It is still listed"),
        ({"listings": ALL | {"video": False}}, "It could not be read completely"),
        ({"found": frozenset({"video/v7"})}, "It was made after the plan"),
        ({"undetermined": frozenset({"video/v7"})}, "It appeared during the run"),
        ({"references": ({"persona_id": "p1", "replica_id": "r1"},)}, "The persona names a replica"),
    ],
)
def test_certificate_is_complete_only_if_everything_was_seen(changes, what):
    asked = dict.fromkeys(ITEMS, "not_found") | changes.pop("asked", {})
    certificate = certify(look=Look(**{"asked": asked, "listings": ALL} | changes))
    assert certificate["state"] == "incomplete"
    (point,) = certificate["open"]
    assert point["what"].startswith(what)
    assert point["next_step"]


def test_certificate_without_a_look_claims_nothing():
    certificate = certify(look=None, accepted=frozenset())
    assert certificate["state"] == "incomplete"
    assert erased_keys(certificate) == []
    for counts in certificate["counts"].values():
        assert (counts["not_found"], counts["not_listed"]) == (0, 0)


def test_held_objects_are_not_judged():
    certificate = certify(make(["video/v1"]))
    items = {item["key"]: item for item in certificate["items"]}
    assert (items["video/v1"]["outcome"], items["video/v1"]["asked"], items["video/v1"]["listed"]) == (
        "held",
        None,
        None,
    )
    assert certificate["state"] == "partly_refused"
    assert certificate["counts"]["video"]["held"] == 1
