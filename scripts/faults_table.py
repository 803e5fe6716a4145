"""
Run the fault matrix on other HTTP clients too, and write docs/faults.md.

Every client meets the same server and the same judge, in real time. ``PYTHONPATH=tests`` and
apache-airflow-providers-http are needed: ``make faults-table`` brings both.
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
from faults.judge import IDS, VICTIM, harm_done, lies_about_a_delete, lies_about_a_list  # noqa: E402
from faults.kinds import KEY, KINDS, Kind  # noqa: E402
from faults.server import Misdeed, RawServer, Tavus, answer  # noqa: E402
from requests.adapters import HTTPAdapter  # noqa: E402
from urllib3 import Retry  # noqa: E402

from tavus_provider.exceptions import TavusError  # noqa: E402
from tavus_provider.hooks.tavus import TavusHook  # noqa: E402

TIMEOUT = 1.0
"""Seconds that every client is told to wait for an answer."""
HANGS_AFTER = 30.0
"""Seconds after which a call of any client is called hanging."""
CONN_ID = threading.local()


def outcome_of(status: int, text: str) -> str:
    """What an error that holds this answer says of a delete, read as kindly as possible."""
    try:
        gone = status == 400 and json.loads(text) == {"error": "Invalid replica_id"}
    except ValueError:
        gone = False
    if gone or status in (404, 410):
        return "already_gone"
    return "unknown" if status >= 500 or status == 408 else "failed"


class Plain:
    """requests, as its documentation shows it: a session, a timeout, ``raise_for_status``."""

    name = "`requests`"
    how = (
        "`requests` {requests}: one `Session` with the key in its headers, `timeout={timeout:g}` in every "
        "call, `raise_for_status()` after it."
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

    def page(self, number: int) -> dict:
        response = self.session.get(
            f"{self.url}/v2/replicas", params={"limit": 100, "page": number}, timeout=TIMEOUT
        )
        response.raise_for_status()
        return response.json()

    def list(self) -> list[str]:
        """Page after page until as many rows are there as there should be, or a page is empty."""
        rows: list[dict] = []
        while True:
            body = self.page(len(rows) // Tavus.page_length + 1)
            rows += body["data"]
            if not body["data"] or len(rows) >= body["total_count"]:
                return [row["replica_id"] for row in rows]


class Retrying(Plain):
    """requests with urllib3's Retry on the adapter."""

    name = "`requests` + `Retry`"
    how = (
        "`requests` with `HTTPAdapter(max_retries=Retry(total=3, backoff_factor=0.1, "
        "status_forcelist=[429, 500, 502, 503, 504]))` of urllib3 {urllib3}, otherwise the same."
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

    def run(self, method: str, path: str, data: dict | None = None) -> requests.Response:
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

    def page(self, number: int) -> dict:
        return self.run("GET", "/v2/replicas", {"limit": 100, "page": number}).json()


class Ours:
    """TavusHook, with the same timeout."""

    name = "`TavusHook`"
    how = "`TavusHook` of this package: extra `timeout` {timeout:g}, everything else as it comes."

    def __init__(self, url: str) -> None:
        self.hook = TavusHook(CONN_ID.tavus)

    def delete(self, replica_id: str) -> str:
        try:
            return self.hook.delete_replica(replica_id).outcome
        except TavusError as error:
            return error.outcome

    def list(self) -> list[str]:
        return [replica.replica_id for replica in self.hook.list_replicas()]


ROWS = {
    "F03": "hang-up",
    "F05": "reset",
    "F06": "silence",
    "F13": "5xx",
    "F14": "503 with Retry-After",
    "F23": "redirect",
    "F30": "garbage",
    "F31": "HTML page",
    "F36": "oversized head",
    "F37": "head in drips",
    "F39": "1xx",
    "F41": "202, 206 or no real status",
}
"""Words for the rows of the matrix that appear on the page."""

CLIENTS = [Plain, Retrying, Airflow, Ours]


@dataclass
class Cell:
    """One fault for one client, and what came of it."""

    client: type
    kind: Kind
    call: str
    after: bool
    times: int | None
    number: int
    lies: list[str] = field(default_factory=list)
    hung: bool = False
    strayed: bool = False
    harm: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Start the servers, let the client call, and judge it."""
        other = RawServer(lambda *_: answer(200, {"data": [], "total_count": 0}))
        tavus = Tavus(
            IDS,
            Misdeed(self.kind.says, self.call, after=self.after, times=self.times),
            elsewhere=other.url,
            tick=0.25,
        )
        tavus.drips = int(2 * HANGS_AFTER / tavus.tick)
        server = RawServer(tavus.talk)
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
        said: list[object] = []
        thread = threading.Thread(target=self.ask, args=(server.url, name, said), daemon=True)
        thread.start()
        thread.join(HANGS_AFTER)
        self.hung = thread.is_alive()
        if said and self.call == "DELETE":
            self.lies = lies_about_a_delete(tavus, str(said[0]))
        elif said and isinstance(said[0], list):
            self.lies = lies_about_a_list(tavus, said[0])
        self.strayed = any(KEY in head for head in other.heads)
        self.harm = harm_done(tavus, most=99)
        server.close()
        other.close()

    def ask(self, url: str, name: str, said: list[object]) -> None:
        CONN_ID.http, CONN_ID.tavus = f"http_{name}", f"tavus_{name}"
        try:
            client = self.client(url)
            said.append(client.delete(VICTIM) if self.call == "DELETE" else client.list())
        except BaseException:  # noqa: BLE001  # whatever it is, it is no false word
            said.append("unknown")

    @property
    def good(self) -> bool:
        """Whether nothing of what is counted has happened."""
        return not (self.lies or self.hung or self.strayed or self.harm)


LOCK = threading.Lock()


def cells() -> Iterator[Cell]:
    """Every kind of fault once and always: a delete before and after its effect, a listing at page one."""
    number = 0
    for client in CLIENTS:
        for kind in KINDS:
            for times in (1, None):
                for call, after, applies in [
                    ("LIST", False, True),
                    ("DELETE", False, kind.before),
                    ("DELETE", True, kind.after),
                ]:
                    if applies:
                        number += 1
                        yield Cell(client, kind, call, after, times, number)


def count(found: list[Cell], what: Callable[[Cell], object]) -> int:
    return sum(bool(what(cell)) for cell in found)


def page(found: list[Cell]) -> str:
    """The text of docs/faults.md."""
    names = ("requests", "urllib3", "apache-airflow-providers-http")
    versions = {name: version(name) for name in names}
    rows = []
    for client in CLIENTS:
        mine = [cell for cell in found if cell.client is client]
        figures = [
            count(mine, lambda cell: cell.call == "DELETE" and cell.lies),
            count(mine, lambda cell: cell.call == "LIST" and cell.lies),
            count(mine, lambda cell: cell.hung),
            count(mine, lambda cell: cell.strayed),
            count(mine, lambda cell: cell.harm),
            count(mine, lambda cell: not cell.good),
        ]
        rows.append(f"| {client.name} | {len(mine)} | " + " | ".join(map(str, figures)) + " |")
    details = []
    for client in CLIENTS:
        told: dict[str, Counter[str]] = {}
        for cell in found:
            if cell.client is client and cell.call == "DELETE":
                for lie in cell.lies:
                    told.setdefault(lie, Counter())[ROWS.get(cell.kind.name[:3], cell.kind.name[:3])] += 1
        for lie, rows_of_lie in sorted(told.items()):
            which = ", ".join(f"{row} ({times})" for row, times in rows_of_lie.items())
            details.append(f"- {client.name}, {lie}: {which}.")
    return TEXT.format(
        how="\n".join(f"- {client.how.format(timeout=TIMEOUT, **versions)}" for client in CLIENTS),
        rows="\n".join(rows),
        details="\n".join(details),
        hangs=HANGS_AFTER,
        each=len(found) // len(CLIENTS),
    )


TEXT = """\
# Every fault, and who tells the truth about it

A delete of a replica cannot be undone, and whoever sends one wants to know what came of it. So the
tests have a Tavus on raw sockets that misbehaves before or after the effect of a delete and keeps a log of
what it did: [`tests/faults/server.py`](../tests/faults/server.py). The kinds of fault stand in
[`tests/faults/kinds.py`](../tests/faults/kinds.py), with what must come of each.

```bash
.venv/bin/python -m pytest tests/faults    # the whole matrix on this package; its last line counts the cells
make faults-table                          # what of it other clients can run too; writes this page
make mutants                               # plants bugs into a copy of the package; which tests notice?
```

The whole matrix has each kind once and always, in a listing (at its first, second and fourth request), a
look-up, a soft and a hard delete; in pairs, a delete in doubt and then a look-up in doubt; and in batches,
one delete at a time and sixteen at once. Waits take no time there: the tests bring a clock of their own.

## Beside other clients

The same server, faults and judge, in real time: {each} cells for each client. Each was used as its own
documentation shows it:

{how}

All are read as kindly as possible. An error without an answer, a 408 and a 5xx count as "I do not know",
which is never false; what is false is only "deleted" about what lives, "failed" or "not there" about what
this client has deleted, and a listing that is not complete. A call hangs if it has not come back after
{hangs:g} s.

| client | cells | false: delete | false: list | hung | key elsewhere | stray delete | any of these |
|---|---|---|---|---|---|---|---|
{rows}

*False*: something false was told about a delete or a list. *Key elsewhere*: another origin was sent the API
key. *Stray delete*: a DELETE was sent for something else.

What was false about deletes:

{details}

This page is written by `make faults-table`.
"""


def main() -> None:
    logging.disable(logging.CRITICAL)
    os.environ["AIRFLOW__TAVUS__ALLOWED_ORIGINS"] = "https://tavusapi.com"
    found = list(cells())
    began = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(Cell.run, found))
    (ROOT / "docs" / "faults.md").write_text(page(found), encoding="utf-8")
    for client in CLIENTS:
        mine = [cell for cell in found if cell.client is client]
        print(f"{client.name}: {len(mine)} cells, {count(mine, lambda cell: not cell.good)} broken")
    print(f"wrote docs/faults.md in {time.monotonic() - began:.0f} s")
    os._exit(0)  # some clients hang for hours


if __name__ == "__main__":
    main()
