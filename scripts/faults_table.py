"""
Run the fault tests with other HTTP clients too, and write docs/faults.md.

All clients use the same server and are judged by the same rules, in real time. Run by ``make faults-table``;
needs ``PYTHONPATH=tests`` and apache-airflow-providers-http.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HOME = tempfile.mkdtemp(prefix="tavus-faults-")
os.environ.update(
    AIRFLOW_HOME=HOME,
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__UNIT_TEST_MODE="True",
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{HOME}/airflow.db",
    no_proxy="127.0.0.1",
)

import requests  # noqa: E402
from airflow.providers.http.hooks.http import HttpHook  # noqa: E402
from faults.judge import (  # noqa: E402
    IDS,
    TARGET,
    false_delete_claims,
    false_list_claims,
    unwanted_deletes,
)
from faults.kinds import KEY, KINDS, FaultKind  # noqa: E402
from faults.server import FakeTavus, Fault, RawServer, http_response  # noqa: E402
from requests.adapters import HTTPAdapter  # noqa: E402
from urllib3 import Retry  # noqa: E402

from tavus_provider.exceptions import TavusError  # noqa: E402
from tavus_provider.hooks.tavus import TavusHook  # noqa: E402

TIMEOUT = 1.0
"""Timeout of every client in seconds."""
HUNG_AFTER = 30.0
"""Seconds after which a client counts as hung."""
CONN_ID = threading.local()


def outcome_of(status: int, text: str) -> str:
    """Return the outcome that an error with this response reports, in the client's favour."""
    try:
        gone = status == 400 and json.loads(text) == {"error": "Invalid replica_id"}
    except ValueError:
        gone = False
    if gone or status in (404, 410):
        return "already_gone"
    return "unknown" if status >= 500 or status == 408 else "failed"


class Plain:
    """requests, used as in its documentation: a session, a timeout, ``raise_for_status``."""

    name = "`requests`"
    how = (
        "`requests` {requests}: one `Session` with the key in its headers, `timeout={timeout:g}` in every "
        "request, `raise_for_status()` after it."
    )

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.headers["x-api-key"] = KEY

    def delete(self, replica_id: str) -> str:
        try:
            response = self.session.delete(f"{self.url}/v2/replicas/{replica_id}", timeout=TIMEOUT)
            response.raise_for_status()
        except requests.HTTPError as error:
            return outcome_of(error.response.status_code, error.response.text)
        return "deleted"

    def page(self, number: int) -> Any:
        response = self.session.get(
            f"{self.url}/v2/replicas", params={"limit": 100, "page": number}, timeout=TIMEOUT
        )
        response.raise_for_status()
        return response.json()

    def list(self) -> list[str]:
        """Read pages until there are ``total_count`` rows or a page is empty."""
        rows: list[dict[str, Any]] = []
        while True:
            body = self.page(len(rows) // FakeTavus.page_size + 1)
            rows += body["data"]
            if not body["data"] or len(rows) >= body["total_count"]:
                return [row["replica_id"] for row in rows]


class Retrying(Plain):
    """requests with urllib3's Retry on the adapter."""

    name = "`requests` + `Retry`"
    how = (
        "`requests` with `HTTPAdapter(max_retries=Retry(total=3, backoff_factor=0.1, "
        "status_forcelist=[429, 500, 502, 503, 504]))` of urllib3 {urllib3}, otherwise as above."
    )

    def __init__(self, url: str) -> None:
        super().__init__(url)
        retry = Retry(total=3, backoff_factor=0.1, status_forcelist=[429, 500, 502, 503, 504])
        self.session.mount("http://", HTTPAdapter(max_retries=retry))


class Airflow(Plain):
    """HttpHook.run on a connection that holds the base URL."""

    name = "`HttpHook`"
    how = (
        "`HttpHook` of apache-airflow-providers-http {apache-airflow-providers-http}: `run()` on a "
        "connection with the base URL, the key as a header, `extra_options={{'timeout': {timeout:g}}}`."
    )

    def __init__(self, url: str) -> None:
        self.url = url

    def run(self, method: str, path: str, data: dict[str, Any] | None = None) -> Any:
        hook = HttpHook(method=method, http_conn_id=CONN_ID.http)
        return hook.run(path, data, headers={"x-api-key": KEY}, extra_options={"timeout": TIMEOUT})

    def delete(self, replica_id: str) -> str:
        try:
            self.run("DELETE", f"/v2/replicas/{replica_id}")
        except requests.RequestException:
            raise
        except Exception as error:  # noqa: BLE001  # AirflowException("404:Not Found")
            status = str(error).partition(":")[0]
            return outcome_of(int(status) if status.isdigit() else 500, "")
        return "deleted"

    def page(self, number: int) -> Any:
        return self.run("GET", "/v2/replicas", {"limit": 100, "page": number}).json()


class Provider(Plain):
    """TavusHook with the same timeout."""

    name = "`TavusHook`"
    how = "`TavusHook` of this package: extra `timeout` {timeout:g}, otherwise the defaults."

    def __init__(self, url: str) -> None:
        self.url = url
        self.hook = TavusHook(CONN_ID.tavus)

    def delete(self, replica_id: str) -> str:
        try:
            return self.hook.delete_replica(replica_id).outcome
        except TavusError as error:
            return error.outcome

    def list(self) -> list[str]:
        return [row.key for row in self.hook.list_replicas()]


ROWS = {
    "F03": "connection closed",
    "F05": "connection reset",
    "F06": "no response",
    "F13": "5xx",
    "F14": "503 with Retry-After",
    "F20": "401 or 403",
    "F23": "redirect",
    "F30": "garbage",
    "F31": "HTML page",
    "F34": "gzip bomb",
    "F36": "long header",
    "F37": "slow header",
    "F39": "1xx",
    "F41": "202, 206, 299 or invalid status",
}
"""Names of the groups of faults that appear on the page."""

CLIENTS = [Plain, Retrying, Airflow, Provider]


@dataclass
class Cell:
    """One fault for one client, and the result."""

    client: type[Plain]
    kind: FaultKind
    request: str
    applied: bool
    times: int | None
    number: int
    false_claims: list[str] = field(default_factory=list)
    hung: bool = False
    key_leaked: bool = False
    unwanted: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Run the client against the server with the fault, and check its result."""
        other = RawServer(lambda *_: http_response(200, {"data": [], "total_count": 0}))
        tavus = FakeTavus(
            IDS,
            Fault(self.kind.respond, self.request, applied=self.applied, times=self.times),
            other_origin=other.url,
            drip_interval=0.25,
        )
        tavus.drips = int(2 * HUNG_AFTER / tavus.drip_interval)
        server = RawServer(tavus.respond)
        name = f"cell_{self.number}"
        extra = json.dumps({"timeout": TIMEOUT})
        os.environ[f"AIRFLOW_CONN_HTTP_{name.upper()}"] = json.dumps(
            {"conn_type": "http", "host": server.url}
        )
        os.environ[f"AIRFLOW_CONN_TAVUS_{name.upper()}"] = json.dumps(
            {"conn_type": "tavus", "host": server.url, "password": KEY, "extra": extra}
        )
        with LOCK:
            os.environ["AIRFLOW__TAVUS__ALLOWED_ORIGINS"] += f",{server.url}"
        results: list[object] = []
        thread = threading.Thread(target=self.send, args=(server.url, name, results), daemon=True)
        thread.start()
        thread.join(HUNG_AFTER)
        self.hung = thread.is_alive()
        if results and self.request == "DELETE":
            self.false_claims = false_delete_claims(tavus, str(results[0]))
        elif results and isinstance(results[0], list):
            self.false_claims = false_list_claims(tavus, results[0])
        self.key_leaked = any(KEY in head for head in other.heads)
        self.unwanted = unwanted_deletes(tavus, most=99)
        server.close()
        other.close()

    def send(self, url: str, name: str, results: list[object]) -> None:
        """Append the outcome of the delete or the listed ids to ``results``."""
        CONN_ID.http, CONN_ID.tavus = f"http_{name}", f"tavus_{name}"
        try:
            client = self.client(url)
            results.append(client.delete(TARGET) if self.request == "DELETE" else client.list())
        except BaseException:  # noqa: BLE001  # an error claims nothing, so it is not false
            results.append("unknown")

    @property
    def good(self) -> bool:
        """Whether none of the counted errors happened."""
        return not (self.false_claims or self.hung or self.key_leaked or self.unwanted)


LOCK = threading.Lock()


def cells() -> Iterator[Cell]:
    """Yield every kind of fault, once and always, for a listing and for both effects of a delete."""
    number = 0
    for client in CLIENTS:
        for kind in KINDS:
            for times in (1, None):
                for request, applied, possible in [
                    ("LIST", False, True),
                    ("DELETE", False, kind.not_applied),
                    ("DELETE", True, kind.applied),
                ]:
                    if possible:
                        number += 1
                        yield Cell(client, kind, request, applied, times, number)


def count(results: list[Cell], condition: Callable[[Cell], object]) -> int:
    """Return the number of cells for which the condition is true."""
    return sum(bool(condition(cell)) for cell in results)


def page(results: list[Cell]) -> str:
    """Return the text of docs/faults.md."""
    names = ("requests", "urllib3", "apache-airflow-providers-http")
    versions = {name: version(name) for name in names}
    rows = []
    for client in CLIENTS:
        own = [cell for cell in results if cell.client is client]
        figures = [
            count(own, lambda cell: cell.request == "DELETE" and cell.false_claims),
            count(own, lambda cell: cell.request == "LIST" and cell.false_claims),
            count(own, lambda cell: cell.hung),
            count(own, lambda cell: cell.key_leaked),
            count(own, lambda cell: cell.unwanted),
            count(own, lambda cell: not cell.good),
        ]
        rows.append(f"| {client.name} | {len(own)} | " + " | ".join(map(str, figures)) + " |")
    details = []
    for client in CLIENTS:
        claims: dict[str, Counter[str]] = {}
        for cell in results:
            if cell.client is client and cell.request == "DELETE":
                for claim in cell.false_claims:
                    claims.setdefault(claim, Counter())[ROWS.get(cell.kind.name[:3], cell.kind.name[:3])] += 1
        for claim, groups in sorted(claims.items()):
            names_and_counts = "; ".join(f"{group} ({times})" for group, times in groups.items())
            details.append(f"- {client.name} {claim}: {names_and_counts}.")
    return TEXT.format(
        how="\n".join(f"- {client.how.format(timeout=TIMEOUT, **versions)}" for client in CLIENTS),
        rows="\n".join(rows),
        details="\n".join(details),
        hung_after=HUNG_AFTER,
        each=len(results) // len(CLIENTS),
    )


TEXT = """\
# Fault matrix

Deleting a replica cannot be undone, so a client must report correctly what happened to each delete. The
tests check this with a fake Tavus API on raw sockets, [`tests/faults/server.py`](../tests/faults/server.py).
It misbehaves before or after a delete takes effect, and logs what it did. The result that the client reports
is compared with that log. The kinds of fault and their expected results are listed in
[`tests/faults/kinds.py`](../tests/faults/kinds.py).

```bash
.venv/bin/python -m pytest tests/faults    # the whole matrix; the last line counts the cells
make faults-table                          # the part that other clients can run too; writes this page
make mutants                               # puts known bugs into copies of the package and runs the tests
```

The matrix contains each kind of fault, once and always:

- in a listing (first, second and fourth request), in a look-up, in a soft and in a hard delete
- in pairs: an ambiguous delete, followed by a look-up that fails
- in the apply task, with 1 and with 16 deletes at the same time
- for videos and conversations: in a listing, a look-up and a delete, and in the end of a conversation

Waits take no time there, because the tests replace the clock.

## Comparison with other clients

All clients use the same server with the same faults and are judged by the same rules, in real time:
{each} cells per client. Each client is used as its own documentation shows:

{how}

Results are read in the most favourable way. An error without a response, a 408 or a 5xx counts as
"unknown", which is never false. A result is false only if the client reports "deleted" although the replica
exists, reports "failed" or "already gone" although this client deleted it, or returns an incomplete listing.
A call hangs if it has not returned after {hung_after:g} s. On a busy machine, a few cells more can hang.

| client | cells | false delete | false listing | hung | key leaked | unwanted delete | any of these |
|---|---|---|---|---|---|---|---|
{rows}

- *False delete*, *false listing*: the client reported something false about a delete or a listing.
- *Key leaked*: the client sent the API key to another origin.
- *Unwanted delete*: the client sent a DELETE for something else.

False results of deletes, by kind of fault (number of cells):

{details}

`make faults-table` writes this page.
"""


def main() -> None:
    logging.disable(logging.CRITICAL)
    os.environ["AIRFLOW__TAVUS__ALLOWED_ORIGINS"] = "https://tavusapi.com"
    results = list(cells())
    began = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(Cell.run, results))
    (ROOT / "docs" / "faults.md").write_text(page(results), encoding="utf-8")
    for client in CLIENTS:
        own = [cell for cell in results if cell.client is client]
        print(f"{client.name}: {len(own)} cells, {count(own, lambda cell: not cell.good)} with errors")
    print(f"wrote docs/faults.md in {time.monotonic() - began:.0f} s")
    os._exit(0)  # some clients hang for hours


if __name__ == "__main__":
    main()
