from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import wait

import pytest
from client.conftest import API, KEY

from tavus_provider.client import pagination
from tavus_provider.client.api import TavusClient
from tavus_provider.client.pagination import WorkerThreads
from tavus_provider.exceptions import TavusInvalidResponseError, TavusValidationError
from tavus_provider.sandbox import Sandbox


@pytest.fixture
def make_account(make_client):
    """Return a function that starts a sandbox with replicas: ``make_account(250, clamp_limit=7)``."""
    with contextlib.ExitStack() as stack:

        def start(count: int, **switches: object) -> tuple[Sandbox, TavusClient]:
            rows = [{"replica_id": f"r{number:04}", "age": "9d"} for number in range(count)]
            sandbox = stack.enter_context(Sandbox({"replicas": rows}, key=KEY))
            sandbox.switch(**switches)
            return sandbox, make_client(sandbox.url)

        yield start


def row(number: int) -> dict[str, object]:
    return {"replica_id": f"r{number:04}", "replica_type": "user"}


def page(*numbers: int, total: object = 3) -> dict[str, object]:
    return {"json": {"data": [row(number) for number in numbers], "total_count": total}}


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250])
@pytest.mark.parametrize("clamp", [None, 7])
def test_listing_is_complete_for_any_page_size(make_account, count, clamp):
    sandbox, client = make_account(count, clamp_limit=clamp)
    assert [replica.replica_id for replica in client.list_replicas()] == sandbox.replica_ids()


@pytest.mark.parametrize("first", [0, 1])
def test_pages_of_videos_may_start_at_0_or_1(mocked_client, requests_mock, first):
    def respond(request, _):
        start = max(int(request.qs["page"][0]) - first, 0) * 100
        rows = [{"video_id": f"v{number}"} for number in range(start, min(start + 100, 250))]
        return {"data": rows, "total_count": 250}

    requests_mock.get(f"{API}/v2/videos", json=respond)
    assert len(mocked_client.list_videos()) == 250


@pytest.mark.parametrize(
    ("responses", "reason"),
    [
        pytest.param([{"json": {"data": [row(1)]}}], "total_count null", id="total missing"),
        pytest.param([page(1, total="1")], 'total_count "1"', id="total a string"),
        pytest.param([page(1, total=True)], "total_count true", id="total true"),
        pytest.param([page(1, total=-1)], "total_count -1", id="total -1"),
        pytest.param([page(1, total=1.0)], "total_count 1.0", id="total a float"),
        pytest.param([page(1), page()], "returned 1 rows and total_count 3", id="total too high"),
        pytest.param([page(1, 2, total=1)], "returned 2 rows and total_count 1", id="total too low"),
        pytest.param([page(1, total=0)], "returned 1 rows and total_count 0", id="total 0"),
        pytest.param([page(total=5)], "returned 0 rows and total_count 5", id="empty page"),
        pytest.param([page(1, 2), page(1, 2)], "page 2 repeats rows of earlier pages", id="page repeated"),
        pytest.param([page(1, 2), page(2, 1)], "page 2 repeats rows", id="page repeated in another order"),
        pytest.param([page(1, 2), page(2)], "page 2 repeats rows", id="only known rows"),
        pytest.param(
            [page(1, 1, total=2), page(total=2)], "returned 1 rows and total_count 2", id="twice on a page"
        ),
        pytest.param(
            [page(1, 2, total=4), page(2, 3, total=4), page(total=4)], "returned 3 rows", id="shifted"
        ),
        pytest.param(
            [{"json": {"data": None, "total_count": 0}}], "no list of rows in 'data'", id="data null"
        ),
        pytest.param(
            [{"json": {"data": {}, "total_count": 0}}], "no list of rows in 'data'", id="data object"
        ),
        pytest.param([{"json": {"total_count": 0}}], "no list of rows in 'data'", id="no data"),
        pytest.param([{"json": [row(1)]}], "no list of rows in 'data'", id="a list"),
        pytest.param([{"text": "null"}], "no list of rows in 'data'", id="null"),
        pytest.param(
            [{"text": "<html>", "headers": {"Content-Type": "text/html"}}], "is not JSON", id="HTML"
        ),
        pytest.param([{"text": ""}], "is not JSON", id="empty"),
        pytest.param([{"text": '{"data": [], "total_count": 0'}], "is not JSON", id="cut"),
        pytest.param([{"text": "[" * 200_000}], "is not JSON", id="nested"),
        pytest.param([page(1, total=1) | {"status_code": 206}], "returned 206", id="206"),
        pytest.param([page(1, total=1) | {"status_code": 202}], "returned 202", id="202"),
        pytest.param([{"status_code": 204}], "returned 204", id="204"),
        pytest.param([{"status_code": 404, "json": {"error": "x"}}], "page 1 returned 404: x", id="404"),
        pytest.param([{"status_code": 503, "json": {}}], "page 1 returned 503", id="503"),
        pytest.param(
            [page(1, 2), {"status_code": 500, "json": {}}], "page 2 returned 500", id="500 on page 2"
        ),
        pytest.param(
            [{"json": {"data": [row(1), "r2"], "total_count": 2}}],
            "the replica is 'r2'; expected a JSON object",
            id="row a string",
        ),
        pytest.param(
            [{"json": {"data": [row(1), {"replica_id": "../personas/p1"}], "total_count": 2}}],
            "replica_id is '../personas/p1'; expected",
            id="id with a path",
        ),
        pytest.param(
            [{"json": {"data": [{"replica_name": "x"}], "total_count": 1}}],
            "replica_id is missing",
            id="no id",
        ),
        pytest.param(
            [{"json": {"data": [{"replica_id": "r1", "face_id": "r2"}], "total_count": 1}}],
            "replica_id and face_id have different values",
            id="two ids",
        ),
    ],
)
def test_listing_that_may_be_incomplete_is_an_error(mocked_client, requests_mock, responses, reason):
    requests_mock.get(f"{API}/v2/replicas", responses)
    with pytest.raises(TavusInvalidResponseError) as caught:
        mocked_client.list_replicas()
    assert reason in str(caught.value)
    assert caught.value.outcome == "not_attempted"


def test_row_on_two_pages_is_one_replica(mocked_client, requests_mock):
    requests_mock.get(f"{API}/v2/replicas", [page(1, 2), page(2, 3)])
    assert [replica.replica_id for replica in mocked_client.list_replicas()] == ["r0001", "r0002", "r0003"]


def test_listing_is_read_again_if_its_count_changes(mocked_client, requests_mock):
    requests_mock.get(
        f"{API}/v2/replicas",
        [page(1, 2, total=4), page(3, total=3), page(2, 3, total=2)],
    )
    assert [replica.replica_id for replica in mocked_client.list_replicas()] == ["r0002", "r0003"]
    assert [request.qs["page"] for request in requests_mock.request_history] == [["1"], ["2"], ["1"]]


def test_number_of_pages_is_limited(mocked_client, requests_mock, monkeypatch):
    monkeypatch.setattr("tavus_provider.client.pagination.MAX_PAGES", 5)

    def respond(request, _):
        number = int(request.qs["page"][0])
        return {"data": [row(number)], "total_count": 1_000_000}

    requests_mock.get(f"{API}/v2/replicas", json=respond)
    with pytest.raises(
        TavusInvalidResponseError, match="returned 5 rows and total_count 1000000: the listing is incomplete"
    ):
        mocked_client.list_replicas()
    assert requests_mock.call_count == 5


def test_listing_that_keeps_changing_is_an_error(mocked_client, requests_mock):
    requests_mock.get(f"{API}/v2/replicas", [page(1, total=2 + at) for at in range(30)])
    with pytest.raises(TavusInvalidResponseError, match=r"repeats rows|is incomplete"):
        mocked_client.list_replicas()
    assert requests_mock.call_count < 10


@pytest.mark.parametrize("change", ["created", "deleted"])
def test_rows_added_or_deleted_between_pages_are_noticed(mocked_client, requests_mock, change):
    existing = list(range(250))
    changes = iter([lambda: existing.insert(0, 999) if change == "created" else existing.pop(0)])

    def respond(request, _):
        start = (int(request.qs["page"][0]) - 1) * 100
        rows = [row(number) for number in existing[start : start + 100]]
        body = {"data": rows, "total_count": len(existing)}
        next(changes, lambda: None)()
        return body

    requests_mock.get(f"{API}/v2/replicas", json=respond)
    listed = [replica.replica_id for replica in mocked_client.list_replicas()]
    assert listed == [f"r{number:04}" for number in existing]


class PagedServer:
    """
    A list of replicas over real HTTP. ``respond(page)`` is called before each response.

    It may wait, and it may return another response: a pair of rows and total_count, or a status.
    """

    def __init__(self, raw_server, *, count: int, size: int, respond: Callable[[int], object]) -> None:
        self.count, self.size, self.respond = count, size, respond
        self.requested: list[int] = []
        self.answered: list[int] = []
        self.url = raw_server(self._talk).url

    def _talk(self, head: str, _: int) -> bytes:
        page = int(re.search(r"[?&]page=([0-9]+)", head)[1])
        self.requested.append(page)
        response = self.respond(page)
        self.answered.append(page)
        status = response if isinstance(response, int) else 200
        rows, total = response if isinstance(response, tuple) else (self.rows(page), self.count)
        body = json.dumps({"data": rows, "total_count": total}).encode()
        head = f"HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def rows(self, page: int) -> list[dict[str, object]]:
        return [row(number) for number in range((page - 1) * self.size, min(page * self.size, self.count))]


def test_pages_are_returned_in_order(raw_server, make_client):
    third = threading.Event()

    def respond(page: int) -> None:
        if page == 2:
            assert third.wait(20), "page 3 was not asked for while page 2 was under way"
        if page == 3:
            third.set()

    server = PagedServer(raw_server, count=50, size=10, respond=respond)
    client = make_client(server.url, concurrency=4)
    assert [one.replica_id for one in client.list_replicas()] == [f"r{at:04}" for at in range(50)]
    assert server.answered.index(3) < server.answered.index(2)
    assert sorted(server.requested) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_concurrency_limits_the_pages_read_in_parallel(raw_server, make_client, concurrency):
    together, lock = threading.Barrier(concurrency, timeout=20), threading.Lock()
    under_way, most = 0, 0

    def respond(page: int) -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        if page > 1:
            together.wait()
        with lock:
            under_way -= 1

    server = PagedServer(raw_server, count=400, size=10, respond=respond)  # 40 pages
    client = make_client(server.url, concurrency=concurrency)
    assert len(client.list_replicas()) == 400
    assert most == concurrency


def test_parallel_pages_are_read_again_if_the_count_changes(raw_server, make_client):
    changed = iter([True])

    def respond(page: int):
        if page == 3 and next(changed, False):
            return server.rows(3), 51
        return None

    server = PagedServer(raw_server, count=50, size=10, respond=respond)
    assert len(make_client(server.url, concurrency=4).list_replicas()) == 50
    assert server.requested.count(1) == 2


def test_pages_shorter_than_the_first_hide_no_row(raw_server, make_client):
    world = [row(at) for at in range(25)]
    cuts = {1: (0, 10), 2: (10, 13), 3: (13, 14), 4: (14, 24), 5: (24, 25)}

    def respond(page: int):
        return world[slice(*cuts[page])], 25

    server = PagedServer(raw_server, count=25, size=10, respond=respond)
    client = make_client(server.url, concurrency=4)
    assert [one.replica_id for one in client.list_replicas()] == [f"r{at:04}" for at in range(25)]
    assert sorted(server.requested) == [1, 2, 3, 4, 5]


def test_repeated_parallel_pages_are_an_error(raw_server, make_client):
    server = PagedServer(
        raw_server, count=50, size=10, respond=lambda page: (server.rows(2 if page == 4 else page), 50)
    )
    client = make_client(server.url, concurrency=4)
    with pytest.raises(TavusInvalidResponseError, match="page 4 repeats rows"):
        client.list_replicas()


def test_failed_page_stops_the_others(raw_server, make_client):
    failed = threading.Event()

    def respond(page: int):
        if page == 2:
            failed.set()
            return 400
        if page > 2:
            failed.wait(20)
        return None

    server = PagedServer(raw_server, count=3000, size=10, respond=respond)
    client = make_client(server.url, concurrency=4)
    with pytest.raises(TavusInvalidResponseError, match="page 2 returned 400"):
        client.list_replicas()
    assert len(server.requested) < 150


@pytest.mark.parametrize("switch", ["missing", "high"])
def test_wrong_total_count_is_an_error_for_every_list(client, sandbox, switch):
    sandbox.switch(total_count=switch)
    for call in (client.list_replicas, client.list_personas, client.list_conversations, client.list_videos):
        with pytest.raises(TavusInvalidResponseError, match="total_count"):
            call()


# --- while replicas are being deleted


@pytest.fixture
def list_while(make_account):
    """
    Read a listing of 40 replicas in pages of 7 while the account changes: ``list_while(change)``.

    ``change(sandbox, number)`` is called after each page that is read. Returns the ids that were listed, and
    the numbers of the pages that were read.
    """

    def read(change) -> tuple[list[str], list[int]]:
        real, pages = client._get, []

        def get(path, query):
            response = real(path, query)
            pages.append(query["page"])
            change(sandbox, len(pages))
            return response

        client._get = get
        try:
            return [replica.replica_id for replica in client.list_replicas(while_deleting=True)], pages
        finally:
            client._get = real

    sandbox, client = make_account(40, clamp_limit=7)
    read.client = client
    return read


def soft_deleted(*numbers: int) -> list[dict[str, object]]:
    return [{"replica_id": f"r{number:04}", "deleted": "soft"} for number in numbers]


def test_listing_while_deleting_is_read_from_the_last_page(list_while):
    listed, pages = list_while(lambda sandbox, page: None)
    assert sorted(listed) == [f"r{n:04}" for n in range(40)]
    assert pages == [1, 6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize("at_once", [1, 2, 3, 5])
@pytest.mark.parametrize("first", [0, 1, 20])
def test_no_remaining_replica_is_missed_while_others_are_deleted(list_while, at_once, first):
    def delete(sandbox, page):
        numbers = range(first + at_once * (page - 1), first + at_once * page)
        sandbox.put("replicas", *soft_deleted(*(n for n in numbers if n < 40)))

    listed, _ = list_while(delete)
    remaining = {replica.replica_id for replica in list_while.client.list_replicas()}
    assert remaining
    assert remaining <= set(listed)


def test_listing_while_deleting_is_read_again_if_it_grows(list_while):
    def add(sandbox, page):
        if page == 3:
            sandbox.put("replicas", {"replica_id": "new", "age": "1d"})

    listed, pages = list_while(add)
    assert pages == [1, 6, 5, 4, 1, 6, 5, 4, 3, 2, 1]
    assert "new" in listed


def test_listing_while_deleting_that_keeps_growing_is_an_error(list_while):
    with pytest.raises(
        TavusInvalidResponseError, match=r"^GET /v2/replicas returned .* rows were added meanwhile"
    ):
        list_while(lambda sandbox, page: sandbox.put("replicas", {"replica_id": f"new{page}", "age": "1d"}))


@pytest.mark.parametrize("count", ["high", "missing"])
def test_wrong_total_count_is_an_error_while_deleting(list_while, count):
    with pytest.raises(TavusInvalidResponseError):
        list_while(lambda sandbox, page: sandbox.switch(total_count=count))


# --- worker threads


@pytest.fixture
def workers():
    """Return a function that makes worker threads: ``workers(count)``."""
    with contextlib.ExitStack() as stack:

        def make(count: int) -> WorkerThreads:
            return stack.enter_context(contextlib.closing(WorkerThreads(count)))

        yield make


def running_threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("tavus-read")]


def test_results_are_yielded_as_they_complete(workers):
    second = threading.Event()

    def work(item: int) -> int:
        if item == 1:
            assert second.wait(20)
        if item == 2:
            second.set()
        return item * 10

    assert dict(workers(2).map(work, [1, 2, 3])) == {1: 10, 2: 20, 3: 30}


def test_items_are_taken_shortly_before_they_are_needed(workers):
    taken = []
    items = (taken.append(number) or number for number in range(1000))
    with contextlib.closing(workers(3).map(str, items)) as results:
        next(results)
    assert len(taken) == 6


@pytest.mark.parametrize("ending", ["generator closed", "function failed"])
def test_early_end_begins_no_item_and_waits_for_the_running_ones(workers, monkeypatch, ending):
    begun, ended, release, second = [], [], threading.Event(), threading.Event()

    def work(item: int) -> None:
        begun.append(item)
        if item == 0:
            second.wait(20)
        else:
            second.set()
            release.wait(20)
        ended.append(item)
        if item == 0 and ending == "function failed":
            raise TavusValidationError("no")

    def release_and_wait(futures):
        release.set()
        return wait(futures)

    monkeypatch.setattr(pagination, "wait", release_and_wait)
    results = workers(2).map(work, range(100))
    with pytest.raises(TavusValidationError) if ending == "function failed" else contextlib.nullcontext():
        next(results)
    results.close()
    assert set(begun) == set(ended)
    assert set(begun) <= {0, 1, 2}


def test_close_ends_the_threads(workers):
    one = workers(2)
    assert dict(one.map(str, [1, 2])) == {1: "1", 2: "2"}
    assert running_threads() != []
    one.close()
    assert running_threads() == []
