"""
A certificate as one HTML page, to be printed: A4, at most two pages before the annex with the ids.

The page needs no other file and no script. Everything from outside is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from tavus_provider.outcomes import HELD
from tavus_provider.planning.certificate import Certificate, CertificateItem
from tavus_provider.planning.erasure_report import Asked, OpenPoint, State
from tavus_provider.rendering.erasure import GROUNDS, STATES
from tavus_provider.sanitize import escape_line

MAX_POINTS: Final = 5
"""Entries of each list before the annex, so that these fit on two pages. The JSON has all."""

MAX_SUBJECTS: Final = 3
"""Objects that one open point names on the page."""

_COLUMNS: Final = (
    ("found", "objects of the request"),
    ("accepted", "delete accepted by Tavus"),
    ("not_found", "not found when asked"),
    ("not_listed", "not in the complete list"),
    ("held", "under legal hold"),
    ("failed", "failed"),
    ("unknown", "unknown"),
)
_ASKED: Final = {
    Asked.NOT_FOUND.value: "not found",
    Asked.FOUND.value: "returned",
    Asked.UNKNOWN.value: "no usable response",
}
_MEANING: Final = {
    State.COMPLETE: "Nothing of the request was found by any read after the deletes.",
    State.PARTLY_REFUSED: "Except for objects under legal hold, nothing of the request was found by any read "
    "after the deletes.",
    State.INCOMPLETE: "Something of the request still exists, or it is not known whether it does.",
}
_STYLE: Final = """
@page { size: A4; margin: 14mm 18mm; }
* { box-sizing: border-box; }
body { font: 10pt/1.4 "Helvetica Neue", Helvetica, Arial, sans-serif; color: #1b1f24; margin: 0 auto;
  max-width: 174mm; padding: 8mm 0; overflow-wrap: anywhere; }
@media print { body { padding: 0; font-size: 9pt; } h2 { margin-top: 3.5mm; } }
h1 { font-size: 17pt; margin: 0 0 1mm; }
h2 { font-size: 11pt; margin: 5mm 0 1.5mm; break-after: avoid; }
p, ul { margin: 0 0 1.5mm; }
ul { padding-left: 5mm; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 0.8mm 2mm 0.8mm 0;
  border-bottom: 0.2mm solid #c9ced6; }
thead { display: table-header-group; }
tr { break-inside: avoid; }
th.number, td.number { text-align: right; }
.counts th, .counts td { overflow-wrap: normal; }
.facts th { width: 38mm; font-weight: normal; color: #555d68; }
.state { display: inline-block; padding: 1mm 3mm; border: 0.4mm solid; border-radius: 1mm;
  font-weight: bold; }
.complete { color: #17692f; } .partly_refused { color: #8a5300; } .incomplete { color: #a3171f; }
.small { font-size: 8pt; color: #555d68; }
code { font: 8.5pt/1.3 Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.annex { break-before: page; font-size: 8.5pt; }
"""


def certificate_page(certificate: Certificate) -> str:
    """Return a certificate as an HTML document."""
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src '
            "'unsafe-inline'\">",
            '<meta name="viewport" content="width=device-width">',
            f"<title>Erasure {_text(certificate['request'])}, certificate {certificate['number']}</title>",
            f"<style>{_STYLE}</style>",
            "</head>",
            "<body>",
            *_head(certificate),
            *_what_was_seen(certificate),
            *_open(certificate),
            *_refused(certificate),
            *_undetermined(certificate),
            *_out_of_reach(certificate),
            *_evidence(certificate),
            *_annex(certificate),
            "</body>",
            "</html>",
            "",
        ]
    )


def _head(certificate: Certificate) -> Iterable[str]:
    days = certificate["days_left"]
    left = f"{days} days before the due date" if days >= 0 else f"{-days} days after the due date"
    approvals = [
        f"user {one['approved_by']} on {one['approved_at'][:16].replace('T', ' ')}"
        for one in certificate["approvals"]
    ]
    state = certificate["state"]
    yield "<h1>Certificate of erasure</h1>"
    yield f"<p>Data of one person at Tavus. Certificate {certificate['number']} of this request.</p>"
    yield f'<p class="state {_text(state)}">{_text(STATES[State(state)].capitalize())}</p>'
    yield f"<p>{_text(_MEANING[State(state)])}</p>"
    yield from _facts(
        [
            ("Request", certificate["request"]),
            ("Received, due", f"{certificate['received_on']}, {certificate['due_on']}"),
            ("Made", f"{certificate['made_at']} ({left})"),
            ("Ground", GROUNDS.get(certificate["ground"], certificate["ground"])),
            ("Account", f"{certificate['origin']}, connection {certificate['tavus_conn_id']}"),
            ("Kinds", ", ".join(f"{kind}s" for kind in certificate["kinds"])),
            ("Approved by", "; ".join(approvals) or "no approval is recorded"),
        ]
    )


def _what_was_seen(certificate: Certificate) -> Iterable[str]:
    yield "<h2>What was seen</h2>"
    yield '<table class="counts"><thead><tr><th>kind</th>'
    yield "".join(f'<th class="number">{_text(title)}</th>' for _, title in _COLUMNS)
    yield "</tr></thead><tbody>"
    for kind, counts in certificate["counts"].items():
        cells = "".join(
            f'<td class="number">{counts[name]:,}</td>'  # type: ignore[literal-required]  # keys of the table
            for name, _ in _COLUMNS
        )
        yield f"<tr><td>{_text(kind)}s</td>{cells}</tr>"
    yield "</tbody></table>"
    yield f'<p class="small">{_text(certificate["method"], 600)} {_text(certificate["limits"], 600)}</p>'


def _open(certificate: Certificate) -> Iterable[str]:
    if certificate["open"]:
        yield "<h2>What is open, and the next step</h2>"
        yield from _bullets([_describe_open(point) for point in certificate["open"]], limit=12)


def _describe_open(point: OpenPoint) -> str:
    named = point["subjects"][:MAX_SUBJECTS]
    more = f" and {point['count'] - len(named):,} more" if point["count"] > len(named) else ""
    return f"{point['what']}: {', '.join(named)}{more}. Next step: {point['next_step']}."


def _refused(certificate: Certificate) -> Iterable[str]:
    if certificate["held"]:
        yield f"<h2>What was refused, and why ({len(certificate['held']):,})</h2>"
        yield _inline([f"{one['key']} {one['reason']}" for one in certificate["held"]], "; ")


def _undetermined(certificate: Certificate) -> Iterable[str]:
    if rows := certificate["undetermined"]:
        count = max(certificate["undetermined_count"], len(rows))
        yield f"<h2>What could not be determined ({count:,})</h2>"
        yield (
            "<p>These rows may be of this person or of somebody else, which cannot be seen. They were not "
            "deleted.</p>"
        )
        yield _inline(rows)
    if certificate["left"]:
        yield f"<h2>Of kinds that the request does not name ({len(certificate['left']):,})</h2>"
        yield _inline(certificate["left"])
    if certificate["references"]:
        yield "<h2>Personas that name a replica of the request</h2>"
        yield _inline(
            [f"{one['persona_id']}: replica {one['replica_id']}" for one in certificate["references"]]
        )


def _out_of_reach(certificate: Certificate) -> Iterable[str]:
    yield "<h2>Out of reach: whom to ask, if it applies</h2>"
    yield from _bullets([f"{one['what']}: {one['ask']}" for one in certificate["beyond_reach"]], limit=20)


def _evidence(certificate: Certificate) -> Iterable[str]:
    versions = ", ".join(f"{name} {version}" for name, version in certificate["versions"].items())
    yield "<h2>Evidence</h2>"
    yield from _facts(
        [
            ("Certificate", certificate["digest"]),
            ("Plan", certificate["plan_digest"]),
            ("DAG run", f"{certificate['dag_id']}, {certificate['run_id']}"),
            (
                "Ledger",
                f"{len(certificate['ledger']):,} attempts; names and digests are in the JSON and annex",
            ),
            ("Made with", versions),
        ],
        code=2,
    )
    yield (
        '<p class="small">Digests are SHA-256. <code>python -m tavus_provider erasure verify FILE</code> '
        "compares this page, or the JSON beside it, with the ledger.</p>"
    )


def _annex(certificate: Certificate) -> Iterable[str]:
    yield '<section class="annex">'
    yield f"<h2>Annex: all objects ({len(certificate['items']):,})</h2>"
    yield "<table><thead><tr><th>object</th><th>outcome</th><th>accepted</th><th>asked afterwards</th>"
    yield "<th>in the list</th></tr></thead><tbody>"
    yield from (_row(item) for item in certificate["items"])
    yield "</tbody></table>"
    yield "<h2>Records of the ledger</h2>"
    yield "<table><thead><tr><th>attempt</th><th>digest of its last record</th></tr></thead><tbody>"
    for name, digest in sorted(certificate["ledger"].items()):
        yield f"<tr><td><code>{_text(name)}</code></td><td><code>{_text(digest or 'none')}</code></td></tr>"
    yield "</tbody></table></section>"


def _row(item: CertificateItem) -> str:
    listed = {True: "yes", False: "no", None: "not read"}[item["listed"]]
    if item["outcome"] == HELD:
        asked = listed = "not asked: held"
    else:
        asked = _ASKED.get(item["asked"] or "", "not asked")
    cells = (
        f"<code>{_text(item['key'])}</code>",
        _text((item["outcome"] or "none recorded").replace("_", " ")),
        "yes" if item["is_accepted"] else "no",
        asked,
        listed,
    )
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _facts(rows: Iterable[tuple[str, str]], *, code: int = 0) -> Iterable[str]:
    """Yield a table of facts; the first ``code`` values are digests."""
    yield '<table class="facts"><tbody>'
    for number, (name, value) in enumerate(rows):
        shown = f"<code>{_text(value)}</code>" if number < code else _text(value)
        yield f"<tr><th>{_text(name)}</th><td>{shown}</td></tr>"
    yield "</tbody></table>"


def _inline(texts: Sequence[str], separator: str = ", ") -> str:
    more = f" and {len(texts) - MAX_POINTS:,} more, which the JSON has" if len(texts) > MAX_POINTS else ""
    return f"<p>{separator.join(_text(text) for text in texts[:MAX_POINTS])}{more}</p>"


def _bullets(lines: Sequence[str], *, limit: int) -> Iterable[str]:
    yield "<ul>"
    yield from (f"<li>{_text(line, 600)}</li>" for line in lines[:limit])
    if len(lines) > limit:
        yield f"<li>and {len(lines) - limit:,} more, which the JSON has</li>"
    yield "</ul>"


def _text(text: str, limit: int = 256) -> str:
    return escape(escape_line(text, limit))
