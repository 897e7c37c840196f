"""What a person sees on a terminal: hostile output made harmless, a run that is watched, Ctrl-C."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from broadway_client.cli.output import visible
from tests.client.commands import Terminal, environment, run
from tests.client.serving import ApiProcess, FakeWorker, piece, run_config

#: Sets the title, clears the screen, moves the cursor, asks for an answer that the shell then reads, by C1 too.
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x1b[1;1H\x1b[6nscore: 100\r\x9b31m\x08\x7f\u202eevil\u2028\n"


def test_hostile_output_is_shown_and_not_obeyed(tmp_path: Path, api: ApiProcess, worker: FakeWorker) -> None:
    name = "eve\x1b[31m"
    with api.client() as client:
        run_id = client.create_run(run_config(name)).grading_run_id
        client.start_run(run_id)
        info = {"exit_code": 1, "reason": "stage_failed", "message": HOSTILE, "stdout": HOSTILE, "stderr": HOSTILE}
        worker.report(worker.claim(), info, reason="stage_failed")
        (job,) = client.jobs(run_id)
    env = environment(api, tmp_path)
    (tmp_path / "hostile.json").write_text(json.dumps(run_config("amy", env={"B": f"${HOSTILE}"})))
    shown = [
        ("job", "log", job.job_id),
        ("job", "show", job.job_id),
        ("run", "report", run_id),
        ("run", "results", run_id),
        ("run", "watch", run_id),
        ("job", "log", job.job_id, "--json"),
        ("job", "log", f"{run_id}/no\x1b[2Jbody"),
        ("run", "submit", "hostile.json"),
        ("config", "check", "hostile.json"),
    ]
    for words in shown:
        with Terminal(*words, cwd=tmp_path, environment=env) as terminal:
            terminal.wait()
            for bad in (b"\x1b]", b"\x1b[1;1H", b"\x1b[6n", b"\x07", b"\x08", b"\x7f", b"\xc2\x9b", "\u202e".encode()):
                assert bad not in terminal.written, (words, terminal.written)
            assert b"\x1b[2J" not in terminal.written, words
    with Terminal("job", "log", job.job_id, cwd=tmp_path, environment=env) as terminal:
        terminal.wait()
        assert "\\x1b]0;owned\\x07" in terminal.text
    piped = run("job", "log", job.job_id, "--stream", "stdout", cwd=tmp_path, environment=env)
    assert piped.stdout == HOSTILE.replace("\r", "\n"), "a file gets what the job wrote (read with universal newlines)"


@pytest.mark.parametrize("text", ["plain", "tab\tand\nline", "é ü 漢字 🙂"])
def test_text_stays_text(text: str) -> None:
    assert visible(text) == text


def test_a_run_is_watched_over_a_restart_to_its_end(tmp_path: Path, own_api: ApiProcess) -> None:
    (tmp_path / "hw1.json").write_text(json.dumps(run_config("amy", "bob", "eve")))
    env = environment(own_api, tmp_path)
    worker = FakeWorker(own_api)
    with Terminal("run", "submit", "hw1.json", "--watch", cwd=tmp_path, environment=env) as terminal:
        terminal.until("grading students")
        terminal.until("0 of 3")
        terminal.until("1 worker, 0 of 2 slots busy")
        info = {"exit_code": 3, "reason": "stage_failed", "stderr": "ValueError: no idea\n"}
        worker.report(worker.claim(), info, reason="stage_failed")
        terminal.until("1 of 3")
        terminal.until("ValueError: no idea")
        own_api.stop()
        terminal.until("the API is away, trying again")
        own_api.start()
        worker.work(lambda _: ({"exit_code": 0}, None))
        worker.close()
        terminal.until("3 of 3")
        assert terminal.wait() == 0
    assert "why: broadway run report" in terminal.text


def test_a_log_is_followed_to_the_end_of_its_job(tmp_path: Path, api: ApiProcess, worker: FakeWorker) -> None:
    with api.client() as client:
        run_id = client.create_run(run_config("amy")).grading_run_id
        words = ("job", "log", f"{run_id}/amy", "--follow")
        with Terminal(*words, cwd=tmp_path, environment=environment(api, tmp_path)) as terminal:
            terminal.until("it is waiting")
            client.start_run(run_id)
            job = worker.claim()
            worker.until_followed(job)
            worker.post(job, piece(0, "fir"))
            terminal.until("fir")
            worker.report(job, {"stdout": "first", "exit_code": None}, reason="runtime_error")  # it is tried again
            job = worker.claim()
            worker.until_followed(job)
            worker.post(
                job, piece(0, "second\r"), piece(0, "\x1b[2J", "stderr"), piece(7, "\nat once\n"), piece(99, "far\n")
            )
            terminal.until("far")
            worker.report(
                job, {"exit_code": 0, "stdout": " " * 102 + "\n"}, {"exit_code": 1, "stderr": "third"}, reason="timeout"
            )
            assert terminal.wait() == 0
    shown = [line for line in terminal.text.splitlines() if line and not line.startswith("it is queued")]
    assert shown == [
        "it is waiting",
        "--- stage 0 ---",
        "first",
        "--- attempt 2 ---",
        "--- stage 0 ---",
        "second\\x1b[2J",
        "at once",
        "… 83 bytes of stdout are not shown …",
        "far",
        "--- stage 1 ---",
        "third",
        f"83 bytes were not shown; all of it: broadway job log {job['job_id']}",
        "it has failed: timeout",
    ]
    assert b"\x1b[31m\\x1b[2J" in terminal.written, "standard error is red"


def test_a_log_is_followed_over_a_restart_of_the_api(tmp_path: Path, own_api: ApiProcess) -> None:
    worker = FakeWorker(own_api)
    with own_api.client() as client:
        run_id = client.create_run(run_config("amy")).grading_run_id
        client.start_run(run_id)
    job = worker.claim()
    words = ("job", "log", job["job_id"], "--follow")
    with Terminal(*words, cwd=tmp_path, environment=environment(own_api, tmp_path)) as terminal:
        worker.until_followed(job)
        worker.post(job, piece(0, "before\n"))
        terminal.until("before")
        own_api.stop()
        terminal.until("the API is away, trying again")
        own_api.start()
        worker.until_followed(job)
        worker.post(job, piece(0, "before\nafter\n"))  # as graders do for who follows anew
        terminal.until("after")
        terminal.interrupt()
        assert terminal.wait() == 130
    assert terminal.text.count("before") == 1
    assert f"the job goes on; to come back: broadway job log --follow {job['job_id']}" in terminal.text
    assert "Traceback" not in terminal.text
    worker.report(job, {"exit_code": 0, "stdout": "before\nafter\nend\n"})
    worker.close()
    followed = run(*words, cwd=tmp_path, environment=environment(own_api, tmp_path))
    assert followed.stdout == "before\nafter\nend\n"
    events = run(*words, "--json", cwd=tmp_path, environment=environment(own_api, tmp_path)).stdout.splitlines()
    assert [json.loads(line)["event"] for line in events] == ["job", "output", "stage", "end"]


def test_ctrl_c_leaves_the_run_and_says_how_to_come_back(tmp_path: Path, api: ApiProcess) -> None:
    with api.client() as client:
        run_id = client.create_run(run_config("amy")).grading_run_id
        client.start_run(run_id)
        env = environment(api, tmp_path)
        with Terminal("run", "watch", run_id, cwd=tmp_path, environment=env) as terminal:
            terminal.until("0 of 1")
            terminal.interrupt()
            assert terminal.wait() == 130
        assert f"the run goes on; to come back: broadway run watch {run_id}" in terminal.text
        assert "Traceback" not in terminal.text
        assert not client.run(run_id).state.ended
        client.cancel_run(run_id)
    # Piped: plain lines, and the exit code of a run that did not go well.
    watched = run("run", "watch", run_id, cwd=tmp_path, environment=env, check=1)
    assert watched.stdout.endswith("cancelled: 1 cancelled\n")
    assert "\x1b" not in watched.stdout
    events = run("run", "watch", run_id, "--json", cwd=tmp_path, environment=env, check=1)
    assert json.loads(events.stdout)["state"] == "cancelled"


def test_a_narrow_terminal_leaves_out_what_can_be_missed(tmp_path: Path, api: ApiProcess, worker: FakeWorker) -> None:
    name = "elizabeth.montgomery"
    with api.client() as client:
        run_id = client.create_run(run_config(name)).grading_run_id
        client.start_run(run_id)
        said = f"ValueError: {'no idea ' * 20}"
        worker.report(worker.claim(), {"exit_code": 1, "reason": "stage_failed", "stderr": said}, reason="stage_failed")
    env = environment(api, tmp_path) | {"COLUMNS": "60"}
    for words in (("run", "results", run_id), ("run", "watch", run_id)):
        with Terminal(*words, cwd=tmp_path, environment=env) as terminal:
            terminal.wait()
        assert any(name in line and "stage_failed" in line for line in terminal.text.splitlines()), terminal.text
    with Terminal("run", "results", run_id, cwd=tmp_path, environment=env | {"COLUMNS": "100"}) as terminal:
        terminal.wait()
    with api.client() as client:
        (job,) = client.jobs(run_id)
    assert job.job_id in terminal.text
