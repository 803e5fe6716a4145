"""Complete listings: the algorithm without HTTP, and the lists of a client over HTTP."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from client.conftest import API, KEY

from tavus_provider.client import overlapping_windows
from tavus_provider.client.api import TavusClient
from tavus_provider.client.id_table import IdTable
from tavus_provider.client.listing import Page, PageTooLargeError
from tavus_provider.client.pagination import read_list
from tavus_provider.client.transport import MAX_BODY_BYTES
from tavus_provider.exceptions import TavusInvalidResponseError
from tavus_provider.sandbox import Sandbox

INCOMPLETE = "the listing cannot be shown to be complete, so nothing may be deleted based on it"


def ids(count: int) -> list[str]:
    return [f"r{number:04}" for number in range(count)]


class Server:
    """
    A list without HTTP. ``before(number)`` is called before each read and may change ``rows``.

    :param total: ``total_count``; ``None`` for the right one
    :param first_page: number of its first page; it returns the first page for smaller numbers too
    """

    def __init__(
        self,
        rows: list[str],
        *,
        clamp: int = 100,
        total: Callable[[list[str]], int] | None = None,
        first_page: int = 1,
        before: Callable[[int], object] = lambda number: None,
    ) -> None:
        self.rows, self.clamp, self.total, self.first_page, self.before = (
            rows,
            clamp,
            total,
            first_page,
            before,
        )
        self.requests: list[tuple[int, int]] = []
        self.waits: list[float] = []

    def fetch(self, page: int, limit: int) -> Page[str]:
        self.requests.append((page, limit))
        self.before(len(self.requests))
        size = min(limit, self.clamp)
        start = max(0, page - self.first_page) * size
        rows = self.rows[start : start + size]
        return Page(rows, self.total(rows) if self.total else len(self.rows))

    def read(self, **options) -> list[str]:
        return read_list("GET /list", self.fetch, identify=str, wait=self.waits.append, **options)


# --- requests


@pytest.mark.parametrize("batch_size", [1, 16])
@pytest.mark.parametrize(
    ("count", "requests"),
    [
        (0, 1),
        (1, 1),
        (99, 1),
        (100, 2),  # a full page is followed by another request
        (101, 3),  # and by a look at the start, for rows that moved there
        (1_000, 13),
        (20_000, 229),
        (50_000, 572),
    ],
)
def test_number_of_requests(count, requests, batch_size):
    server = Server(ids(count))
    assert server.read(batch_size=batch_size) == ids(count)
    assert len(server.requests) == requests
    assert not server.waits


def test_windows_overlap_by_one_row_at_least():
    server = Server(ids(350))
    server.read()
    assert server.requests == [(1, 100), (2, 99), (3, 98), (4, 97), (1, 100)]


@pytest.mark.parametrize("clamp", [7, 10, 25, 50, 64])
def test_pages_shorter_than_asked_for_are_overlapped_too(clamp):
    server = Server(ids(300), clamp=clamp)
    assert server.read() == ids(300)


@pytest.mark.parametrize("clamp", [1, 2, 3])
def test_pages_of_few_rows_are_read_twice(clamp):
    """All windows of up to three rows begin or end at row 6, so none shows what is on both sides."""
    assert Server(ids(9), clamp=clamp).read() == ids(9)


class FixedPages(Server):
    """A server that ignores ``limit``."""

    def fetch(self, page: int, limit: int) -> Page[str]:
        return super().fetch(page, self.clamp)


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 20, 45])
@pytest.mark.parametrize(("first_page", "counts_from"), [(1, 1), (0, 0), (0, 1)])
def test_server_that_ignores_the_limit_is_read_twice(count, first_page, counts_from):
    server = FixedPages(ids(count), clamp=10, first_page=counts_from)
    assert server.read(first_page=first_page) == ids(count)


@pytest.mark.parametrize("count", [99, 100, 101, 150, 197, 198, 199, 200, 201, 530])
@pytest.mark.parametrize("first_page", [1, 0])
def test_limit_that_is_always_the_largest_one_is_read_twice(count, first_page):
    """The second page is shorter than its limit, so only the first one shows that the limit is ignored."""
    server = FixedPages(ids(count), clamp=100, first_page=first_page)
    assert server.read(first_page=first_page) == ids(count)


@pytest.mark.parametrize("at", range(1, 13))
def test_exchange_of_a_row_between_fixed_pages_hides_no_other_row(at):
    """One row is deleted at the start and one is added at the end, so that total_count stays the same."""

    def exchange(number: int) -> None:
        if number == at:
            server.rows = [*server.rows[1:], "new"]

    server = FixedPages(ids(45), clamp=10, before=exchange)
    assert set(ids(45)[1:]) <= set(server.read())


def test_fixed_pages_that_change_all_the_time_are_an_error():
    def exchange(number: int) -> None:
        server.rows = [*server.rows[1:], f"new{number}"]

    server = FixedPages(ids(45), clamp=10, before=exchange)
    with pytest.raises(TavusInvalidResponseError, match=INCOMPLETE):
        server.read()
    assert len(server.requests) < 60


def test_fixed_pages_with_a_changing_total_count_are_an_error():
    server = FixedPages(ids(45), clamp=10, total=lambda rows: 45 if rows == ids(10) else 44)
    with pytest.raises(TavusInvalidResponseError, match="changed its total_count from 45 to 44"):
        server.read()


def test_server_that_ignores_limit_and_page_is_soon_an_error():
    server = FixedPages(ids(45), clamp=10)
    with pytest.raises(TavusInvalidResponseError, match="returned a row on two pages"):
        read_list("GET /list", lambda page, limit: server.fetch(1, limit), identify=str)
    assert len(server.requests) < 30


@pytest.mark.parametrize("total", [5, 60])
def test_fixed_pages_with_a_wrong_total_count_are_an_error(total):
    server = FixedPages(ids(45), clamp=10, total=lambda rows: total)
    with pytest.raises(TavusInvalidResponseError, match=f"45 rows and total_count {total}: {INCOMPLETE}"):
        server.read()


@pytest.mark.parametrize("first_page", [0, 1])
@pytest.mark.parametrize("count", [0, 99, 100, 101, 250])
def test_pages_of_videos_may_start_at_0_or_1(first_page, count):
    assert Server(ids(count), first_page=first_page).read(first_page=0, batch_size=4) == ids(count)


@pytest.mark.parametrize("batch_size", [1, 16])
def test_pages_of_videos_that_start_at_1_cost_two_more_requests(batch_size):
    server = Server(ids(20_000), first_page=1)
    assert server.read(first_page=0, batch_size=batch_size) == ids(20_000)
    assert len(server.requests) <= 229 + 2


def test_limit_that_is_rounded_down_by_the_server():
    server = Server(ids(1000))
    listed = read_list("GET /list", lambda page, limit: server.fetch(page, limit // 5 * 5), identify=str)
    assert listed == ids(1000)


# --- total_count


@pytest.mark.parametrize("total", [len, lambda rows: min(100, len(rows)), lambda rows: 100])
def test_total_count_of_the_page_or_capped_does_not_end_the_list(total):
    assert Server(ids(350), total=total).read() == ids(350)


@pytest.mark.parametrize("clamp", [10, 12, 20, 24, 25, 50, 64])
def test_short_first_page_of_a_usual_size_is_followed_by_another_request(clamp):
    """The server may ignore the limit, and count only the rows of the page."""
    assert Server(ids(350), clamp=clamp, total=len).read() == ids(350)
    server = Server(ids(clamp))
    assert server.read() == ids(clamp)
    assert server.requests == [(1, 100), (2, clamp - 1)]


@pytest.mark.parametrize("count", [0, 1, 2, 50, 99, 100, 250])
def test_total_count_that_is_too_high_is_an_error(count):
    server = Server(ids(count), total=lambda rows: count + 1)
    with pytest.raises(TavusInvalidResponseError, match=f"returned {count} rows and total_count {count + 1}"):
        server.read()
    assert server.waits


def test_total_count_that_is_late_is_waited_for():
    server = Server(ids(50), total=lambda rows: 50 if server.waits else 51)
    assert server.read() == ids(50)
    assert server.waits == [1.0]


def test_truncated_list_is_an_error():
    with pytest.raises(TavusInvalidResponseError, match="returned 1000 rows and total_count 5000") as caught:
        Server(ids(1000), total=lambda rows: 5000).read(batch_size=16)
    assert str(caught.value).endswith(INCOMPLETE)
    assert caught.value.outcome == "not_attempted"


def test_huge_total_count_causes_few_requests():
    server = Server(ids(150), total=lambda rows: 10**9)
    with pytest.raises(TavusInvalidResponseError):
        server.read(batch_size=16)
    assert len(server.requests) < 100


# --- changes while the list is read


def test_one_row_added_per_page_forever_does_not_fail():
    server = Server(ids(6000), before=lambda number: server.rows.insert(0, f"new{number}"))
    assert set(ids(6000)) <= set(server.read(batch_size=1))
    assert len(server.requests) < 80


def test_rows_added_at_the_start_are_found_by_the_last_look():
    server = Server(ids(1000), before=lambda number: server.rows.insert(0, f"new{number}"))
    listed = server.read()
    assert {f"new{number}" for number in range(1, 12)} <= set(listed)


@pytest.mark.parametrize("batch_size", [1, 16])
@pytest.mark.parametrize("at_once", [1, 5, 30, 70])
def test_many_deleted_rows_do_not_fail(batch_size, at_once):
    def delete(_):
        del server.rows[:at_once]

    server = Server(ids(3000), before=delete)
    listed = server.read(batch_size=batch_size)
    assert set(server.rows) <= set(listed)


def test_all_rows_deleted_while_they_are_read():
    server = Server(ids(1000), before=lambda number: server.rows.clear() if number == 5 else None)
    server.read()
    assert server.rows == []


def test_page_swap_is_noticed():
    """A row is deleted and another one added between two pages, so ``total_count`` stays the same."""

    def swap(number):
        if number == 2:
            del server.rows[0]
            server.rows.append("new")

    server = Server(ids(300), before=swap)
    listed = server.read()
    assert set(server.rows) <= set(listed)


def test_unread_row_that_moves_to_the_start_is_found():
    """A list ordered by ``updated_at``, whose ``total_count`` stays the same because a row is deleted."""

    def move(number):
        if number == 2:
            server.rows.insert(0, server.rows.pop())
            del server.rows[50]

    server = Server(ids(300), before=move)
    assert "r0299" in server.read()


def test_read_row_that_moves_to_the_end_lets_the_list_be_read_again():
    server = Server(
        ids(300), before=lambda number: server.rows.append(server.rows.pop(5)) if number == 2 else None
    )
    assert sorted(server.read()) == ids(300)
    assert [page for page, _ in server.requests].count(1) == 3


def test_shared_rows_in_another_order_let_the_list_be_read_again():
    def swap(number):
        if number == 3:  # the next page has the last two rows of the one before it
            server.rows[196:198] = reversed(server.rows[196:198])

    server = Server(ids(300), before=swap)
    assert sorted(server.read()) == ids(300)
    assert [page for page, _ in server.requests].count(1) == 3


def test_old_row_that_moves_ahead_does_not_link_two_pages():
    """Rows were deleted, so that the next page shares no row with the last one, but has a moved row."""

    def change(number):
        if number == 4:
            server.rows.insert(330, server.rows.pop(5))
            del server.rows[6:16]

    server = Server(ids(500), before=change)
    listed = server.read()
    assert set(server.rows) <= set(listed)


def test_last_page_is_read_after_the_others():
    """A row may move to the end of the list, from a page that is not read yet."""

    def last_first(function, windows):
        yield from ((window, function(window)) for window in reversed(list(windows)))

    def move(number):
        if number == 3:
            server.rows.remove("r0295")  # so that total_count does not show it
            server.rows.append(server.rows.pop(150))

    server = Server(ids(300), before=move)
    listed = server.read(batch_size=16, run=last_first)
    assert set(server.rows) <= set(listed)


def test_rows_that_keep_moving_are_an_error():
    server = Server(ids(600), before=lambda number: server.rows.append(server.rows.pop(5)))
    with pytest.raises(TavusInvalidResponseError, match="returned before, at another place") as caught:
        server.read()
    assert str(caught.value).endswith(INCOMPLETE)
    assert server.waits == [1.0, 2.0]


def test_rows_in_another_order_on_each_page_are_an_error():
    server = Server(ids(600), before=lambda number: server.rows.reverse())
    with pytest.raises(TavusInvalidResponseError, match=INCOMPLETE):
        server.read()


# --- servers that do not do what they are asked for


@pytest.mark.parametrize("count", [10, 100, 150])
def test_server_that_ignores_the_page_is_an_error(count):
    server = Server(ids(count))
    with pytest.raises(TavusInvalidResponseError, match=INCOMPLETE):
        read_list("GET /list", lambda page, limit: server.fetch(1, limit), identify=str)
    assert len(server.requests) < 200


@pytest.mark.parametrize("count", [1, 98])
def test_row_twice_on_a_page_counts_once(count):
    rows = [*ids(count), ids(count)[-1]]
    assert read_list("GET /list", lambda page, limit: Page(rows, count), identify=str) == ids(count)
    with pytest.raises(TavusInvalidResponseError, match=INCOMPLETE):
        read_list("GET /list", lambda page, limit: Page(rows, count + 1), identify=str)


def test_number_of_pages_is_limited(monkeypatch):
    monkeypatch.setattr(overlapping_windows, "MAX_PAGES", 5)
    with pytest.raises(TavusInvalidResponseError, match="has more than 5 pages"):
        Server(ids(1000)).read()


@pytest.mark.parametrize("most", [99, 60, 13])
def test_page_that_is_too_large_is_read_in_smaller_parts(most):
    server = Server(ids(300))

    def fetch(page, limit):
        if limit > most:
            raise PageTooLargeError("too large")
        return server.fetch(page, limit)

    assert read_list("GET /list", fetch, identify=str, batch_size=4) == ids(300)


def test_one_row_that_is_too_large_is_an_error():
    def fetch(page, limit):
        limits.append(limit)
        raise PageTooLargeError("too large")

    limits: list[int] = []
    with pytest.raises(PageTooLargeError):
        read_list("GET /list", fetch, identify=str)
    assert limits == [100, 50, 25, 12, 6, 3, 1]


# --- memory


def test_id_table_is_a_map():
    table = IdTable()
    assert "r0001" not in table
    assert table.get("r0001") is None
    assert all(table.set(row_id, number) for number, row_id in enumerate(ids(5000)))
    assert not table.set("r0001", 7)
    assert len(table) == 5000
    assert [table.get(row_id) for row_id in ids(5000)] == [0, 7, *range(2, 5000)]
    assert "r5000" not in table


MEASURE = """
import resource
import sys
from tavus_provider.client.listing import Page
from tavus_provider.client.pagination import read_list

COUNT = 1_000_000

def fetch(page, limit):
    limit = int(sys.argv[1]) or limit
    numbers = range((page - 1) * limit, min(page * limit, COUNT))
    return Page([(f"c{number:012x}", f"r{number % 500}") for number in numbers], COUNT)

def keep_latest(rows, new):
    for row in new.values():
        rows[row[1]] = row

def used_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

before = used_mib()
rows = read_list("GET /list", fetch, identify=lambda row: row[0], collect=keep_latest, batch_size=16)
print(len(rows), used_mib() - before)
"""


@pytest.mark.parametrize("fixed_limit", [0, 100], ids=["pages overlap", "read twice"])
def test_memory_for_a_million_rows_grows_by_less_than_64_mib(fixed_limit):
    command = [sys.executable, "-c", MEASURE, str(fixed_limit)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    rows, growth = result.stdout.split()
    assert int(rows) == 500
    assert float(growth) < 64


# --- over HTTP


def row(number: int) -> dict[str, object]:
    return {"replica_id": f"r{number:04}", "replica_type": "user"}


def page(*numbers: int, total: object = 3) -> dict[str, object]:
    return {"json": {"data": [row(number) for number in numbers], "total_count": total}}


@pytest.fixture
def make_account(make_client):
    """Return a function that starts a sandbox with replicas: ``make_account(250, clamp_limit=7)``."""
    with contextlib.ExitStack() as stack:

        def start(count: int, **switches: object) -> tuple[Sandbox, TavusClient]:
            rows = [{"replica_id": row_id, "age": "9d"} for row_id in ids(count)]
            sandbox = stack.enter_context(Sandbox({"replicas": rows}, key=KEY))
            sandbox.switch(**switches)
            return sandbox, make_client(sandbox.url)

        yield start


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250])
@pytest.mark.parametrize("clamp", [None, 7])
def test_listing_is_complete_for_any_page_size(make_account, count, clamp):
    sandbox, client = make_account(count, clamp_limit=clamp)
    assert [replica.replica_id for replica in client.list_replicas()] == sandbox.replica_ids()


@pytest.mark.parametrize("most", [1, 3, 20, 50, 99])
def test_server_that_refuses_the_limit_is_asked_for_fewer_rows(make_account, most):
    sandbox, client = make_account(60, max_limit=most)
    assert [replica.replica_id for replica in client.list_replicas()] == sandbox.replica_ids()


@pytest.mark.parametrize(
    "body",
    [
        {"error": "Invalid request: limit must be at most 20"},
        {"message": {"limit": ["Must be less than or equal to 20."]}},
        {"detail": [{"loc": ["query", "limit"], "msg": "Input should be less than or equal to 20"}]},
    ],
)
@pytest.mark.parametrize("status", [400, 422])
def test_refused_limit_is_recognized(requests_mock, make_client, status, body):
    def respond(request, context):
        if int(request.qs["limit"][0]) <= 20:
            return page(1, 2, 3)["json"]
        context.status_code = status
        return body

    requests_mock.get("https://tavusapi.com/v2/replicas", json=respond)
    assert len(make_client("https://tavusapi.com").list_replicas()) == 3


def test_later_page_that_is_refused_ends_the_read(requests_mock, make_client):
    """Its limit was accepted for the first page, so fewer rows would not help."""

    def respond(request, context):
        number = int(request.qs["page"][0])
        if number == 1:
            return page(*range(100), total=300)["json"]
        context.status_code = 400
        return {"error": "page is over the limit"}

    requests_mock.get("https://tavusapi.com/v2/replicas", json=respond)
    with pytest.raises(TavusInvalidResponseError, match="returned 400: page is over the limit"):
        make_client("https://tavusapi.com").list_replicas()
    assert requests_mock.call_count < 40


def test_request_that_is_refused_whatever_its_limit_is_an_error(make_account):
    sandbox, client = make_account(
        3,
        faults=[
            {"path": "/v2/replicas", "status": 400, "times": None, "body": '{"error": "no limit helps"}'}
        ],
    )
    with pytest.raises(TavusInvalidResponseError, match="returned 400: no limit helps"):
        client.list_replicas()
    sandbox.wait_until_idle()
    assert len(sandbox.state()["requests"]) == 7  # 100, 50, 25, 12, 6, 3, 1


@pytest.mark.parametrize(
    ("responses", "reason"),
    [
        pytest.param([{"json": {"data": [row(1)]}}], "total_count null", id="total missing"),
        pytest.param([page(1, total="one")], 'total_count "one"', id="total a word"),
        pytest.param([page(1, total="1.0")], 'total_count "1.0"', id="total a fraction as text"),
        pytest.param([page(1, total="")], 'total_count ""', id="total empty"),
        pytest.param([page(1, total=True)], "total_count true", id="total true"),
        pytest.param([page(1, total=-1)], "total_count -1", id="total -1"),
        pytest.param([page(1, total=1.0)], "total_count 1.0", id="total a float"),
        pytest.param([page(1, total={"value": 1})], "total_count a dict: expected", id="total an object"),
        pytest.param(
            [{"text": '{"data": [], "total_count": 0, "total_count": 1}'}],
            "total_count given more than once, with different values: expected",
            id="two totals",
        ),
        pytest.param(
            [{"json": {"data": {"data": [row(1)]}}}],
            "no list of rows in 'data', but a dict there;",
            id="twice",
        ),
        pytest.param([page(1)], "returned a row on two pages", id="total too high"),
        pytest.param([page(total=5)], "returned 0 rows and total_count 5", id="empty page"),
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
            [page(*range(100), total=100), {"status_code": 500, "json": {}}],
            "page 2 returned 500",
            id="500 on page 2",
        ),
    ],
)
def test_listing_that_may_be_incomplete_is_an_error(mocked_client, requests_mock, responses, reason):
    requests_mock.get(f"{API}/v2/replicas", responses)
    with pytest.raises(TavusInvalidResponseError) as caught:
        mocked_client.list_replicas()
    assert reason in str(caught.value)
    assert caught.value.outcome == "not_attempted"


def test_total_count_may_be_a_number_as_text(mocked_client, requests_mock):
    requests_mock.get(f"{API}/v2/replicas", [page(1, 2, total="2"), page(1, 2, total=" 2\n")])
    assert len(mocked_client.list_replicas()) == 2
    assert len(mocked_client.list_replicas()) == 2


def test_page_with_too_many_bytes_is_read_in_smaller_parts(mocked_client, requests_mock, monkeypatch):
    monkeypatch.setitem(MAX_BODY_BYTES, "GET", 10_000)

    def respond(request, _):
        limit, number = int(request.qs["limit"][0]), int(request.qs["page"][0])
        rows = [{**row(at), "replica_name": "x" * 300} for at in range(100)]
        return {"data": rows[(number - 1) * limit : number * limit], "total_count": 100}

    requests_mock.get(f"{API}/v2/replicas", json=respond)
    assert [replica.replica_id for replica in mocked_client.list_replicas()] == ids(100)


class PagedServer:
    """
    A list of replicas over real HTTP. ``respond(page)`` is called before each response.

    It may wait, and it may return a status other than 200.
    """

    def __init__(self, raw_server, *, count: int, clamp: int, respond: Callable[[int], int | None]) -> None:
        self.count, self.clamp, self.respond = count, clamp, respond
        self.requested: list[int] = []
        self.answered: list[int] = []
        self.url = raw_server(self._talk).url

    def _talk(self, head: str, _: int) -> bytes:
        page, limit = (int(re.search(rf"[?&]{name}=([0-9]+)", head)[1]) for name in ("page", "limit"))
        self.requested.append(page)
        status = self.respond(page) or 200
        self.answered.append(page)
        limit = min(limit, self.clamp)
        rows = [row(number) for number in range((page - 1) * limit, min(page * limit, self.count))]
        body = json.dumps({"data": rows, "total_count": self.count}).encode()
        head = f"HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body


def test_pages_are_returned_in_order(raw_server, make_client):
    third = threading.Event()

    def respond(page: int) -> None:
        if page == 2:
            assert third.wait(20), "page 3 was not asked for while page 2 was under way"
        if page == 3:
            third.set()

    server = PagedServer(raw_server, count=500, clamp=100, respond=respond)
    client = make_client(server.url, concurrency=4)
    assert [one.replica_id for one in client.list_replicas()] == ids(500)
    assert server.answered.index(3) < server.answered.index(2)
    assert server.requested[0] == 1
    assert sorted(server.requested[1:-2]) == [2, 3, 4, 5]
    assert server.requested[-2:] == [6, 1]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_concurrency_limits_the_pages_read_in_parallel(raw_server, make_client, concurrency):
    together, lock = threading.Barrier(concurrency, timeout=20), threading.Lock()
    under_way, most = 0, 0

    def respond(page: int) -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        if 1 < page < 8:
            together.wait()
        with lock:
            under_way -= 1

    server = PagedServer(raw_server, count=1000, clamp=100, respond=respond)
    client = make_client(server.url, concurrency=concurrency)
    assert len(client.list_replicas()) == 1000
    assert most == concurrency


def test_failed_page_stops_the_others(raw_server, make_client):
    failed = threading.Event()

    def respond(page: int):
        if page == 2:
            failed.set()
            return 400
        if page > 2:
            failed.wait(20)
        return None

    server = PagedServer(raw_server, count=3000, clamp=30, respond=respond)
    client = make_client(server.url, concurrency=4)
    with pytest.raises(TavusInvalidResponseError, match="page 2 returned 400"):
        client.list_replicas()
    assert len(server.requested) < 20


@pytest.mark.parametrize("switch", ["missing", "high"])
def test_wrong_total_count_is_an_error_for_every_list(client, sandbox, switch):
    sandbox.switch(total_count=switch)
    for call in (client.list_replicas, client.list_personas, client.list_conversations, client.list_videos):
        with pytest.raises(TavusInvalidResponseError, match="total_count"):
            call()


# --- over HTTP, while the account changes


@pytest.fixture
def list_while(make_account):
    """
    Read a listing of 40 replicas in pages of 7 while the account changes: ``list_while(change)``.

    ``change(sandbox, number)`` is called after each page that is read. Returns the ids that were listed, and
    the number of pages that were read.
    """

    def read(change, **options) -> tuple[list[str], int]:
        real, lock, pages = client._reader.get, threading.Lock(), 0

        def get(path, query):
            nonlocal pages
            response = real(path, query)
            with lock:
                pages += 1
                change(sandbox, pages)
            return response

        client._reader.get = get
        try:
            return [replica.replica_id for replica in client.list_replicas(**options)], pages
        finally:
            client._reader.get = real

    sandbox, client = make_account(40, clamp_limit=7)
    read.client, read.sandbox = client, sandbox
    return read


def soft_deleted(*numbers: int) -> list[dict[str, object]]:
    return [{"replica_id": f"r{number:04}", "deleted": "soft"} for number in numbers]


@pytest.mark.parametrize("while_deleting", [False, True])
@pytest.mark.parametrize("at_once", [1, 2, 3, 5])
@pytest.mark.parametrize("first", [0, 1, 20])
def test_no_remaining_replica_is_missed_while_others_are_deleted(list_while, at_once, first, while_deleting):
    def delete(sandbox, page):
        numbers = range(first + at_once * (page - 1), first + at_once * page)
        sandbox.put("replicas", *soft_deleted(*(n for n in numbers if n < 40)))

    listed, _ = list_while(delete, while_deleting=while_deleting)
    remaining = {replica.replica_id for replica in list_while.client.list_replicas()}
    assert remaining <= set(listed)


@pytest.mark.parametrize("while_deleting", [False, True])
def test_listing_that_grows_with_each_page_does_not_fail(list_while, while_deleting):
    def add(sandbox, page):
        sandbox.put("replicas", {"replica_id": f"new{page}", "age": "1d"})

    listed, pages = list_while(add, while_deleting=while_deleting)
    assert set(ids(40)) <= set(listed)
    assert pages < 40


@pytest.mark.parametrize("while_deleting", [False, True])
def test_replica_added_for_each_deleted_one_hides_none(list_while, while_deleting):
    def swap(sandbox, page):
        sandbox.put("replicas", *soft_deleted(page), {"replica_id": f"new{page}", "age": "1d"})

    listed, pages = list_while(swap, while_deleting=while_deleting)
    assert set(ids(40)[pages + 1 :]) <= set(listed)


@pytest.mark.parametrize("count", ["high", "missing"])
def test_wrong_total_count_is_an_error_while_deleting(list_while, count):
    list_while.sandbox.switch(total_count=count)
    with pytest.raises(TavusInvalidResponseError, match="total_count"):
        list_while.client.list_replicas(while_deleting=True)


def test_conversations_are_complete_on_a_busy_account(make_client):
    """One new conversation and one new status for each page that is read."""
    rows = [
        {"conversation_id": f"c{number:04}", "status": "ended", "age": f"{number + 1}h"}
        for number in range(1500)
    ]
    with Sandbox({"replicas": [], "conversations": rows}, key=KEY) as sandbox:
        client = make_client(sandbox.url)
        real, lock, pages = client._reader.get, threading.Lock(), 0

        def get(path, query):
            nonlocal pages
            response = real(path, query)
            with lock:
                pages += 1
                sandbox.put(
                    "conversations", {"conversation_id": f"new{pages}", "status": "active", "age": "0h"}
                )
            return response

        client._reader.get = get
        listed = {conversation.activity_id for conversation in client.list_conversations()}
    assert {row["conversation_id"] for row in rows} <= listed
