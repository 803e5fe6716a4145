"""State, request log and command of the sandbox."""

import concurrent.futures
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests
from sandbox.client import ANNA, listing, many, row_of, send, wait_until

from tavus_provider.sandbox import Sandbox, server, world
from tavus_provider.sandbox.__main__ import main

ROOT = Path(__file__).parents[2]


def test_state_over_http_equals_state_in_process(tavus: Sandbox) -> None:
    send(tavus, "DELETE", f"/v2/replicas/{ANNA}?hard=true", headers={"User-Agent": "me/1"})
    state = requests.get(f"{tavus.url}/_sandbox/state", timeout=20).json()
    assert state == tavus.state()
    (seen,) = state["requests"]
    assert seen.pop("at") >= 0
    assert seen == {
        "n": 1, "in_flight": 1, "method": "DELETE", "path": f"/v2/replicas/{ANNA}", "query": "hard=true",
        "status": 200, "key_ok": True, "user_agent": "me/1", "effect": "hard",
    }  # fmt: skip
    assert [len(state[kind]) for kind in world.RESOURCES] == [30, 4, 4, 3]


def test_request_log_drops_the_oldest_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LOG_LENGTH", 3)
    with Sandbox(many(1)) as tavus:
        for _ in range(5):
            send(tavus, "GET", "/v2/replicas")
        assert [entry["n"] for entry in tavus.state()["requests"]] == [3, 4, 5]


def test_concurrent_requests_are_counted(tavus: Sandbox) -> None:
    # The delay lasts until the server has received all three.
    tavus.switch(faults=[{"delay": 600, "times": 3}])
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(send, tavus, "GET", "/v2/replicas") for _ in range(3)]
        wait_until(lambda: len(tavus.state()["requests"]) == 3)
        assert max(entry["in_flight"] for entry in tavus.state()["requests"]) == 3
        tavus.__exit__(None, None, None)
        assert all(isinstance(future.exception(), requests.ConnectionError) for future in waiting)


def test_rows_can_be_changed_while_running(tavus: Sandbox) -> None:
    post = f"{tavus.url}/_sandbox"
    new = [{"replica_id": "rnew", "age": "1d"}, {"replica_id": ANNA, "replica_name": "renamed"}]
    assert requests.post(f"{post}/replicas", json=new, timeout=20).status_code == 200
    conversation = {"conversation_id": "c1", "replica_id": ANNA, "status": "active", "age": "1m"}
    assert requests.post(f"{post}/conversations", json=conversation, timeout=20).status_code == 200
    anna = row_of(tavus, ANNA)
    assert (anna["replica_name"], anna["status"]) == ("renamed", "completed")
    assert "rnew" in tavus.replica_ids()
    assert len(listing(tavus, "/v2/conversations", status="active")) == 2
    tavus.put("replicas", {"replica_id": ANNA, "deleted": "hard"})
    assert ANNA not in tavus.replica_ids()
    assert tavus.state()["deletes"] == []
    rejected = requests.post(f"{post}/replicas", json={"replica_id": "r1", "age": "old"}, timeout=20)
    assert rejected.json() == {"error": "replicas[0].age: 'old' is not an age such as 90d, 36h or 15m"}
    assert requests.post(f"{post}/reset", timeout=20).status_code == 200
    assert row_of(tavus, ANNA)["replica_name"] == "spring-campaign_anna"
    assert tavus.state()["requests"] == []


def test_sandboxes_are_independent() -> None:
    with Sandbox() as one, Sandbox() as two:
        one.switch(dates="naive")
        send(one, "DELETE", f"/v2/replicas/{ANNA}")
        assert ANNA in two.replica_ids()
        assert two.state()["switches"]["dates"] == "iso"
        assert two.state()["requests"] == []


def test_sandbox_can_start_in_any_thread_and_leaves_no_thread() -> None:
    before, handler = set(threading.enumerate()), signal.getsignal(signal.SIGINT)

    def use() -> int:
        with Sandbox() as tavus:
            return send(tavus, "GET", "/v2/replicas").status_code

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert [future.result() for future in [pool.submit(use) for _ in range(8)]] == [200] * 8
    assert set(threading.enumerate()) == before
    assert signal.getsignal(signal.SIGINT) is handler


def test_connections_use_tcp_nodelay(tavus: Sandbox) -> None:
    """Without it, each response on a reused connection waits 40 ms for an acknowledgement."""
    with requests.Session() as session:
        session.get(f"{tavus.url}/v2/replicas", timeout=20)
        assert tavus._server is not None
        (connection,) = tavus._server.server_state.connections
        accepted = connection.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_connections_are_closed_on_exit() -> None:
    with Sandbox() as tavus:
        session = requests.Session()
        session.get(f"{tavus.url}/v2/replicas", timeout=20)
    with pytest.raises(requests.ConnectionError):
        session.get(f"{tavus.url}/v2/replicas", timeout=20)


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the one line on standard error with which the command fails."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    output = capsys.readouterr()
    assert (stop.value.code, output.out) == (2, "")
    (line,) = output.err.splitlines()
    return line


def test_command_reports_errors_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bad = {"none.json": None, "cut.json": '{"replicas": [', "bad.yaml": "a: [1\nb: 2", "latin.json": "\xff"}
    for name, text in bad.items():
        if text is not None:
            (tmp_path / name).write_bytes(text.encode("latin-1"))
        assert failure(capsys, "--seed", str(tmp_path / name)).startswith(
            f"tavus sandbox: {tmp_path / name}: "
        )
    assert "invalid int value: 'x'" in failure(capsys, "--port", "x")
    assert "0-65535" in failure(capsys, "--port", "70000")
    assert "key: must be" in failure(capsys, "--key", "")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = failure(capsys, "--port", str(port))
    assert line == f"tavus sandbox: cannot listen on 127.0.0.1:{port}: Address already in use"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "tavus.example", "127.0.0.1.example"])
def test_other_hosts_than_loopback_need_the_flag(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setattr(Sandbox, "__enter__", lambda _: pytest.fail("the sandbox listened"))
    line = failure(capsys, "--port", "0", "--host", host)
    assert line == (
        f"tavus sandbox: host: {host!r} is not a loopback address; allow it by --listen-beyond-loopback"
    )


def test_flag_allows_other_hosts() -> None:
    with Sandbox(host="0.0.0.0", listen_beyond_loopback=True) as tavus:
        port = tavus.url.rpartition(":")[2]
        response = requests.get(
            f"http://127.0.0.1:{port}/v2/replicas", headers={"x-api-key": "sandbox"}, timeout=20
        )
        assert response.status_code == 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_prints_its_url_and_stops_on_signal(number: signal.Signals, tmp_path: Path) -> None:
    seed = tmp_path / "world.json"
    seed.write_text(json.dumps(many(3)))
    command = [
        sys.executable,
        "-m",
        "tavus_provider.sandbox",
        "--port",
        "0",
        "--seed",
        str(seed),
        "--key",
        "k1",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        match = re.fullmatch(r"Tavus sandbox at (http://127\.0\.0\.1:\d+)  \(key: k1, 3 replicas\)\n", line)
        assert match, line
        response = requests.get(f"{match[1]}/v2/replicas", headers={"x-api-key": "k1"}, timeout=20)
        assert response.json()["total_count"] == 3
        server.send_signal(number)
        assert server.communicate(timeout=20) == ("", "")
    assert server.returncode == 0


def send_and_leave(tavus: Sandbox, replica_id: str) -> None:
    """Send a DELETE and close the connection without waiting for the response."""
    with socket.create_connection(("127.0.0.1", int(tavus.url.rpartition(":")[2])), timeout=20) as client:
        head = f"DELETE /v2/replicas/{replica_id} HTTP/1.1\r\nHost: a\r\nx-api-key: {tavus.key}\r\n\r\n"
        client.sendall(head.encode())


@pytest.mark.parametrize("latency", [0, 0.05], ids=["at once", "with latency"])
def test_wait_until_idle_waits_for_requests_whose_client_has_gone(tavus: Sandbox, latency: float) -> None:
    tavus.switch(latency=latency)
    ids = tavus.replica_ids()[:20]
    for replica_id in ids:
        send_and_leave(tavus, replica_id)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:  # several threads may wait
        for future in [pool.submit(tavus.wait_until_idle) for _ in range(3)]:
            future.result()
    assert {row["replica_id"] for row in tavus.state()["deletes"]} == set(ids)


def test_wait_until_idle_does_not_wait_for_a_response_after_its_effect(tavus: Sandbox) -> None:
    tavus.switch(faults=[{"method": "DELETE", "delay": 600, "when": "after"}])
    send_and_leave(tavus, ANNA)
    tavus.wait_until_idle()
    assert [row["replica_id"] for row in tavus.state()["deletes"]] == [ANNA]


def test_wait_until_idle_gives_up_after_its_timeout(tavus: Sandbox) -> None:
    tavus.wait_until_idle()
    tavus.switch(latency=600)
    send_and_leave(tavus, ANNA)
    with pytest.raises(TimeoutError, match=r"still answering requests after 0\.01 s"):
        tavus.wait_until_idle(0.01)
    assert row_of(tavus, ANNA)["deleted"] is None
