"""`python3 grader.py` as a process, and the logs it keeps."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from logs import start_logging
from tests.grader.fake_api import FakeApi, fail, success
from tests.grader.stages import IMAGE, processes, until

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-for-nobody-else"


@pytest_asyncio.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with FakeApi.running() as api:
        yield api


class Process:
    """A grader process; what it has written is in `work/logs` and in the two streams."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def end(self) -> tuple[int | None, str]:
        """Its exit status and what it wrote to stderr."""
        _, stderr = await asyncio.wait_for(self._process.communicate(), 30)
        return self._process.returncode, stderr.decode()


async def grader(*options: str, token: str = TOKEN, **environment: str) -> Process:
    own = {name: value for name, value in os.environ.items() if not name.startswith("BROADWAY_")}
    return Process(
        await asyncio.create_subprocess_exec(
            *(sys.executable, str(ROOT / "grader.py"), *options),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=own | {"BROADWAY_TOKEN": token, "BROADWAY_SELF_TEST_AT_START": "never"} | environment,
        )
    )


def options(api: FakeApi, work: Path) -> list[str]:
    return ["--api", api.url, "--work-dir", str(work), "--slots", "2", "--runtime", "sandbox"]


def sleeping_job(seconds: str) -> object:
    stage = {"image": IMAGE, "entry_point": ["sh", "-c", f"echo begun; sleep {seconds}; echo done"], "timeout": 60}
    return {"job_id": "1" * 24, "attempt": 1, "stages": [stage]}


async def test_it_serves_and_ends_with_0_after_one_signal(api: FakeApi, tmp_path: Path) -> None:
    api.say("claim", success(jobs=[sleeping_job("1.25")]))
    process = await grader(*options(api, tmp_path / "work"))
    await until(lambda: processes("sleep 1.25"), "the stage to run")
    process.send(signal.SIGTERM)
    status, stderr = await process.end()
    assert status == 0, stderr
    (report,) = api.of("report")
    assert (report.body["success"], report.body["info"][0]["stdout"]) == (True, "begun\ndone\n")
    assert len(api.of("deregister")) == 1
    assert list((tmp_path / "work" / "jobs").iterdir()) == []
    assert TOKEN not in stderr
    assert TOKEN not in (tmp_path / "work" / "logs" / "grader.log").read_text()
    register = api.of("register")[0].body
    assert (register["slots"], register["runtime"]) == (2, "sandbox")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_kills_what_runs_and_hands_it_back(
    api: FakeApi, tmp_path: Path, number: signal.Signals
) -> None:
    api.say("claim", success(jobs=[sleeping_job("77.125")]))
    process = await grader(*options(api, tmp_path / "work"))
    log = tmp_path / "work" / "logs" / "grader.log"
    await until(lambda: processes("sleep 77.125"), "the stage to run")
    process.send(number)
    await until(lambda: "stopping" in log.read_text(), "the first signal to arrive")
    process.send(number)
    status, stderr = await process.end()
    assert status == 1, stderr
    assert api.of("report") == []
    assert len(api.of("deregister")) == 1
    assert processes("sleep 77.125") == []
    assert list((tmp_path / "work" / "jobs").iterdir()) == []


async def test_a_killed_one_leaves_nothing_to_the_next(api: FakeApi, tmp_path: Path) -> None:
    api.say("claim", success(jobs=[sleeping_job("78.125")]))
    process = await grader(*options(api, tmp_path / "work"))
    await until(lambda: processes("sleep 78.125"), "the stage to run")
    process.send(signal.SIGKILL)
    await process.end()
    assert len(list((tmp_path / "work" / "jobs").iterdir())) == 1
    again = await grader(*options(api, tmp_path / "work"))
    await until(lambda: len(api.of("register")) == 2, "the next one to register")
    assert list((tmp_path / "work" / "jobs").iterdir()) == []
    assert processes("sleep 78.125") == []
    again.send(signal.SIGTERM)
    assert (await again.end())[0] == 0


async def test_faults_of_set_up_are_one_line_and_status_2(api: FakeApi, tmp_path: Path) -> None:
    work = tmp_path / "work"
    api.say("register", fail(401))
    first = await grader(*options(api, work))
    status, stderr = await first.end()
    assert (status, stderr.splitlines()[-1]) == (2, "grader.py: the API refuses the cluster token")
    assert "Traceback" not in stderr

    running = await grader(*options(api, work))
    await until(lambda: api.of("claim"), "it to serve")
    second = await grader(*options(api, work))
    status, stderr = await second.end()
    assert status == 2
    assert stderr == f"grader.py: another grader uses the work directory {work}; give each one its own\n"
    running.send(signal.SIGTERM)
    assert (await running.end())[0] == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--stage-memory", "much"], "--stage-memory"),
        (["--ca-certificate", "/nonexistent.pem"], "/nonexistent.pem"),
        (["--log-dir", "/proc/logs"], "/proc/logs"),
        (["--work-dir", "/proc/work"], "/proc/work"),
    ],
)
async def test_options_that_cannot_be_used_are_one_line(
    api: FakeApi, tmp_path: Path, given: list[str], message: str
) -> None:
    process = await grader(*options(api, tmp_path / "work"), *given)
    status, stderr = await process.end()
    assert status == 2
    assert message in stderr.splitlines()[-1]
    assert "Traceback" not in stderr


async def test_an_engine_that_is_not_there_is_one_line(api: FakeApi, tmp_path: Path) -> None:
    process = await grader(*options(api, tmp_path / "work"), "--runtime", "docker", DOCKER_HOST="tcp://127.0.0.1:1")
    status, stderr = await process.end()
    assert status == 2
    assert stderr.splitlines()[-1].startswith("grader.py: docker: no Docker Engine answers")


def test_logs_go_to_the_file_and_to_stderr_in_utc(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with start_logging("info", tmp_path / "logs", "grader") as logging_:
        logging.getLogger("broadway.test").info("job %s", "abc")
        logging.getLogger("broadway.test").debug("unseen")
        logging.getLogger("httpx").info("unseen: a request")
        logging_.close()
    written = (tmp_path / "logs" / "grader.log").read_text()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO broadway\.test: job abc\n", written)
    assert capsys.readouterr().err == written


def test_an_error_is_logged_with_its_traceback_once(tmp_path: Path) -> None:
    with start_logging("info", tmp_path, "grader"):
        try:
            json.loads("{")
        except ValueError:
            logging.getLogger("broadway.test").exception("reading failed")
    assert (tmp_path / "grader.log").read_text().count("Traceback") == 1


def test_the_log_is_rotated_at_midnight_and_seven_are_kept(tmp_path: Path) -> None:
    with start_logging("info", tmp_path, "grader") as logging_:
        assert logging_._listener is not None
        file = logging_._listener.handlers[0]
        assert isinstance(file, logging.handlers.TimedRotatingFileHandler)
        assert (file.when, file.backupCount, file.utc) == ("MIDNIGHT", 7, True)
        for _ in range(10):
            logging.getLogger("broadway.test").info("a line")
