"""Three APIs behind nginx: whichever of them dies or is replaced, nothing is lost, and nothing counts twice."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pymongo
import pytest
import websockets

from broadway_client.cli.processes import Process, free_port
from tests import services
from tests.api.course_protocol import hear, report, say
from tests.e2e.classes import run_config, stage
from tests.e2e.cluster import CONFIG, Cluster, start_nginx
from tests.e2e.fleet import TOKEN

HEADERS = {"Authorization": TOKEN}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, mongo_replica_set_url: str) -> Iterator[Cluster]:
    """A cluster for all the tests of this module; each brings back what it has ended."""
    name = f"e2e_{uuid.uuid4().hex}"
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), services.with_database(mongo_replica_set_url, name))
    try:
        cluster.open()
        yield cluster
    finally:
        cluster.kill()
        with pymongo.MongoClient[dict[str, object]](mongo_replica_set_url) as client:
            client.drop_database(name)


@pytest.fixture
def http(cluster: Cluster) -> Iterator[httpx.Client]:
    """What speaks to nginx with the cluster token."""
    with httpx.Client(base_url=f"{cluster.url}/api/v1/", headers=HEADERS, timeout=30) as http:
        yield http


def students(number: int) -> list[dict[str, str]]:
    return [{"NET_ID": f"student{index}"} for index in range(number)]


def slow_config(number: int) -> dict[str, Any]:
    """A run of `number` students, a fifth of a second each, with a job before and after them."""
    return run_config(
        *students(number),
        stages=[stage("sleep 0.2; echo $NET_ID")],
        pre_processing_pipeline=[stage("true")],
        post_processing_pipeline=[stage("true")],
    )


def assert_each_has_one_result(cluster: Cluster, run_id: str, number: int) -> None:
    end = cluster.finish(run_id)
    assert (end["state"], end["counts"]["succeeded"]) == ("finished", number + 2), cluster.output()
    for job, student in zip(cluster.jobs(run_id), students(number), strict=True):
        assert job["student"] == student
        assert cluster.stdout(job) == {0: f"{student['NET_ID']}\n"}


def assert_each_ran_once(cluster: Cluster, run_id: str) -> None:
    """By the graders' own word: a job that was handed out but never begun may well have had an attempt more."""
    jobs = [job["job_id"] for job in cluster.client.jobs(run_id)]
    begun = Counter(re.findall(r"job (\w+) attempt \d+ begins", cluster.written()))
    assert {job_id: begun[job_id] for job_id in jobs} == dict.fromkeys(jobs, 1)


def succeeded(cluster: Cluster, run_id: str) -> int:
    return int(cluster.client.run(run_id)["counts"]["succeeded"])


def test_nginx_takes_the_configuration_as_it_is(tmp_path: Path) -> None:
    command = [str(word) for word in (services.nginx_binary(), "-e", "stderr", "-p", tmp_path, "-c", CONFIG, "-t")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr


def test_a_run_outlives_its_apis(cluster: Cluster) -> None:
    for name in ("one", "two"):
        cluster.start_grader(name, runtime="sandbox", slots=2)
    run_id = cluster.grade(slow_config(40))
    cluster.wait_for(lambda: succeeded(cluster, run_id) >= 4, "the run to be under way")
    cluster.apis[0].kill()
    cluster.wait_for(lambda: succeeded(cluster, run_id) >= 10, "it to go on with two APIs")
    cluster.apis[1].send(signal.SIGTERM)
    assert cluster.apis[1].wait(30) == 0
    assert_each_has_one_result(cluster, run_id, 40)
    assert_each_ran_once(cluster, run_id)
    for number in (0, 1):
        cluster.restart_api(number)
    cluster.dismiss("one", "two")
    assert not list(cluster.directory.glob("*/spool/*.json"))


def test_everything_is_replaced_in_the_middle_of_a_run(cluster: Cluster) -> None:
    graders = ("one", "two")
    for name in graders:
        cluster.start_grader(name, runtime="sandbox", slots=2)
    runs = []
    for number in range(len(cluster.apis)):
        runs.append(cluster.grade(slow_config(40)))
        cluster.wait_for(lambda: succeeded(cluster, runs[-1]) >= 2, "the run to be under way")
        cluster.apis[number].send(signal.SIGTERM)
        for name in graders[number : number + 1]:
            cluster.dismiss(name)
            cluster.start_grader(name, runtime="sandbox", slots=2)
        assert cluster.apis[number].wait(30) == 0
        cluster.restart_api(number)
    for run_id in runs:
        assert_each_has_one_result(cluster, run_id, 40)
        assert_each_ran_once(cluster, run_id)
    cluster.dismiss("one", "two")
    assert cluster.alive_workers() == []
    assert not list(cluster.directory.glob("*/spool/**/*.json"))


def asked_for_jobs(cluster: Cluster, worker_id: str) -> bool:
    """Whether a worker was heard of after it registered."""
    (worker,) = [one for one in cluster.client.get("workers")["workers"] if one["worker_id"] == worker_id]
    return bool(worker["last_seen"] > worker["registered_at"])


def test_a_long_poll_is_woken_whichever_api_holds_it(cluster: Cluster, http: httpx.Client) -> None:
    """Graders of the specification send `worker_id` alone, which nginx drops unless told otherwise."""
    workers = [http.post("worker_register", json={}).json()["data"]["worker_id"] for _ in range(3)]

    def poll(worker_id: str) -> tuple[httpx.Response, float]:
        headers = HEADERS | {"worker_id": worker_id, "Prefer": "wait=20"}
        answer = httpx.get(f"{cluster.url}/api/v1/grading_job", headers=headers, timeout=30)
        return answer, time.monotonic()

    with ThreadPoolExecutor(3) as threads:
        polls = [threads.submit(poll, worker_id) for worker_id in workers]
        # Its place in the line is taken before a poll asks the store, which notes that its worker was seen.
        cluster.wait_for(lambda: all(asked_for_jobs(cluster, worker_id) for worker_id in workers), "the polls to wait")
        assert not any(poll.done() for poll in polls), [poll.result()[0].text for poll in polls if poll.done()]
        run_id = cluster.grade(run_config("true", "true", "true"))
        queued_at = time.monotonic()
        answers = [poll.result(30) for poll in polls]
    assert [answer.status_code for answer, _ in answers] == [200, 200, 200]
    assert len({answer.json()["data"]["job_id"] for answer, _ in answers}) == 3
    assert max(answered_at for _, answered_at in answers) - queued_at < 10, "before polls end by themselves"
    for worker_id in workers:
        http.delete(f"worker/{worker_id}").raise_for_status()
    http.post(f"grading_run/{run_id}/cancel").raise_for_status()  # else what they held would wait for the next worker


def test_events_pass_as_they_come(cluster: Cluster, http: httpx.Client) -> None:
    run_id = cluster.client.create_run(run_config("true"))
    with http.stream("GET", f"grading_run/{run_id}/events") as stream:
        lines = stream.iter_lines()
        first = next(line for line in lines if line.startswith("data:"))
        assert '"state":"ready"' in first
        begun = time.monotonic()
        cluster.client.start_run(run_id)
        second = next(line for line in lines if line.startswith("data:"))
        assert '"state":"students"' in second
        assert time.monotonic() - begun < 10, "before a comment would have pushed it out"
        http.post(f"grading_run/{run_id}/cancel").raise_for_status()
        assert '"state":"cancelled"' in [line for line in lines if line.startswith("data:")][-1]


async def test_a_grader_speaks_over_a_websocket(cluster: Cluster, http: httpx.Client) -> None:
    url, headers = cluster.url.replace("http:", "ws:"), {"Authorization": f"Bearer {TOKEN}"}
    async with websockets.connect(f"{url}/api/v1/worker_ws/eniac", additional_headers=headers) as connection:
        await say(connection, "register", {"hostname": "eniac"})
        assert await hear(connection) == {"success": True}
        run_id = cluster.client.create_run({**run_config("true"), "student_pipeline": [{"image": "course/grade:1"}]})
        cluster.client.start_run(run_id)
        job = await hear(connection)
        await say(connection, "job_result", report(job["grading_job_id"]))
        cluster.wait_for(lambda: cluster.client.run(run_id)["state"] == "finished", "the run to end")


def test_a_body_over_the_apis_limit_is_refused_in_the_apis_words(http: httpx.Client) -> None:
    answer = http.post("grading_run", content=b" " * (40 * 2**20))
    assert (answer.status_code, answer.json()["status"]) == (413, "fail")


class Upstream:
    """Stands in for an API that reads each request and closes the connection without an answer."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", free_port()))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed: the test is over
            with connection, connection.makefile("rb") as stream:
                self.requests.append(stream.readline().rstrip())
                while stream.readline().strip():
                    pass


@contextlib.contextmanager
def nginx_before(directory: Path, *ports: int) -> Iterator[str]:
    port = free_port()
    nginx: Process = start_nginx(directory, port, ports)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert time.monotonic() < deadline, nginx.output()
                time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        nginx.kill()


def test_only_what_is_harmless_to_repeat_is_repeated(tmp_path: Path) -> None:
    upstreams = [Upstream() for _ in range(3)]
    try:
        with nginx_before(tmp_path / "nginx", *(upstream.port for upstream in upstreams)) as url:
            assert httpx.post(f"{url}/post", content=b"").status_code == 502
            assert httpx.get(f"{url}/get").status_code == 502
    finally:
        for upstream in upstreams:
            upstream.close()
    requests = [request for upstream in upstreams for request in upstream.requests]
    assert requests.count(b"POST /post HTTP/1.1") == 1
    assert requests.count(b"GET /get HTTP/1.1") >= 2, "the one that failed the POST may be left out for a while"


def test_a_post_that_was_never_sent_goes_to_an_api_that_is_there(tmp_path: Path) -> None:
    upstream = Upstream()
    try:
        with nginx_before(tmp_path / "nginx", free_port(), free_port(), upstream.port) as url:
            for _ in range(3):
                httpx.post(f"{url}/post", content=b"{}")
    finally:
        upstream.close()
    assert upstream.requests[0] == b"POST /post HTTP/1.1"
