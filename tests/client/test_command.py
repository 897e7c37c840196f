"""The command's answers, settings and exit codes, with a real API behind it."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broadway_client.cli.main import main
from tests.client.commands import COMMAND, environment
from tests.client.serving import TOKEN, ApiProcess, FakeWorker, failing, run_config

Run = Callable[..., str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's directory without any settings."""
    for name in ("BROADWAY_API", "BROADWAY_TOKEN", "BROADWAY_CA_CERTIFICATE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def broadway(home: Path, api: ApiProcess, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Run:
    """The command; what it writes to stdout if it exits as expected."""
    monkeypatch.setenv("BROADWAY_API", api.url)
    monkeypatch.setenv("BROADWAY_TOKEN", TOKEN)

    def run(*words: str, check: int = 0) -> str:
        capsys.readouterr()
        code = main(words)
        told = capsys.readouterr()
        assert code == check, told
        return str(told.out if check == 0 else told.out + told.err)

    return run


@pytest.fixture
def graded(broadway: Run, home: Path, worker: FakeWorker) -> str:
    """A run of amy, whose program is well, and bob, whose program is not."""
    (home / "hw1.json").write_text(json.dumps(run_config("amy", "bob")))
    run_id = broadway("run", "submit", "hw1.json").strip()
    worker.work(failing)
    return run_id


def test_a_run_from_its_config_to_its_scores(broadway: Run, graded: str, home: Path) -> None:
    assert "2 jobs" in broadway("run", "status", graded)
    assert "reasons  1 stage_failed" in broadway("run", "status", "latest")
    header, amy, bob = [line.split("\t") for line in broadway("run", "results", graded).splitlines()]
    assert header[:3] == ["student", "state", "reason"]
    assert (amy[:3], bob[:3]) == (["amy", "succeeded", ""], ["bob", "failed", "stage_failed"])
    records = list(csv.DictReader(io.StringIO(broadway("run", "results", graded, "--csv"))))
    assert [(one["student"], one["reason"]) for one in records] == [("amy", ""), ("bob", "stage_failed")]
    assert json.loads(records[1]["roster_entry"]) == {"NET_ID": "bob"}
    assert json.loads(broadway("run", "results", graded, "--json"))[0]["student"] == {"NET_ID": "amy"}
    assert broadway("run", "results", graded, "--state", "failed").count("\n") == 2
    assert graded in broadway("run", "list", "--state", "finished")
    assert "exit code 3" in broadway("job", "show", f"{graded}/bob")
    assert broadway("job", "log", "latest/amy") == "all is well\n"
    assert "has 1 stage; they count from 0" in broadway("job", "log", "latest/bob", "--stage", "1", check=2)
    assert broadway("run", "deliveries", graded).count("\n") == 1  # no webhook is set up
    assert json.loads(broadway("run", "deliveries", graded, "--json")) == []


def test_what_is_retried_and_cancelled(broadway: Run, graded: str, worker: FakeWorker) -> None:
    assert json.loads(broadway("run", "retry", graded, "--json"))["jobs"] == 1
    worker.work(failing)
    assert "with 1 job tried again" in broadway("run", "retry", graded, "--student", "amy")
    assert "cancelled" in broadway("run", "cancel", graded)
    assert "no student eve" in broadway("run", "retry", graded, "--student", "eve", check=2)
    broadway("run", "watch", graded, check=1)


def test_a_run_may_wait_to_be_started(broadway: Run, home: Path) -> None:
    (home / "hw1.json").write_text(json.dumps(run_config("amy")))
    run_id = broadway("run", "submit", "hw1.json", "--no-start").strip()
    assert json.loads(broadway("run", "status", run_id, "--json"))["state"] == "ready"
    assert "has started" in broadway("run", "start", run_id)
    assert "was started before" in broadway("run", "start", run_id, check=3)


def test_the_answers_of_a_refused_config_name_its_lines(broadway: Run, home: Path) -> None:
    (home / "bad.jsonc").write_text(
        '{\n  // who\n  "students": [{"NET_ID": "amy"}],\n  "student_pipeline": [{"image": 7}]\n}'
    )
    told = broadway("run", "submit", "bad.jsonc", check=3)
    assert 'bad.jsonc:4:34: 7 is not of type "string"' in told
    (home / "cut.json").write_text('{\n"students": [')
    assert "cut.json:2:14: " in broadway("run", "submit", "cut.json", check=3)
    assert "none.json: No such file" in broadway("run", "submit", "none.json", check=2)


def test_courses_tokens_and_secrets(broadway: Run, home: Path, api: ApiProcess) -> None:
    broadway("course", "set", "cs225", "--weight", "2")
    assert broadway("course", "list").splitlines()[-1].split("\t")[:2] == ["cs225", "2"]
    token = broadway("token", "create", "query", "--course", "cs225", "--label", "page", "--expires-in", "1h").strip()
    listed = json.loads(broadway("token", "list", "--json"))
    assert token not in json.dumps(listed)
    (home / "hw1.json").write_text(json.dumps(run_config("amy")))
    assert "the token was refused" in broadway("run", "submit", "hw1.json", "--token", token, check=5)
    assert "revoked" in broadway("token", "revoke", listed[-1]["token_id"])
    (home / "value").write_text("s3cret value")
    assert "s3cret" not in broadway("secret", "set", "KEY", "--file", "value")
    assert broadway("secret", "list").splitlines()[-1].startswith("KEY\t")
    broadway("secret", "delete", "KEY")
    assert "no secret KEY" in broadway("secret", "delete", "KEY", check=3)
    broadway("course", "remove", "cs225")
    assert "no course cs225" in broadway("course", "show", "cs225", check=3)


def test_the_fleet(broadway: Run, worker: FakeWorker) -> None:
    assert worker.id in broadway("worker", "list")
    broadway("worker", "drain", worker.id)
    assert [
        one["state"] for one in json.loads(broadway("worker", "list", "--json")) if one["worker_id"] == worker.id
    ] == ["draining"]
    broadway("worker", "resume", worker.id)
    assert "there is no worker 'nowhere'; see `broadway worker list`" in broadway("worker", "drain", "nowhere", check=2)
    assert broadway("course", "set", "a b", check=3).count("is no id of a course") == 1
    assert "there is no worker 5f5f5f5f5f5f5f5f5f5f5f5f" in broadway("worker", "drain", "5f" * 12, check=3)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--token", "wrong"), 5, "the token was refused: missing or wrong token"),
        (("--token", "two words"), 2, "a token must be visible ASCII characters"),
        (("--api", "http://127.0.0.1:9", "--token", "t"), 4, "no answer from http://127.0.0.1:9: Connection refused"),
        (("--api", "nowhere", "--token", "t"), 2, "'nowhere' is no http:// or https:// URL"),
        (("--ca-certificate", "none.pem", "--api", "https://127.0.0.1:9"), 2, "cannot use the CA certificate none.pem"),
        (("--api", "127.0.0.1:1470", "--token", ""), 2, "'127.0.0.1:1470' is no http:// or https:// URL"),
        (("--limit", "many"), 2, "'many' is not a valid integer"),
    ],
)
def test_what_goes_wrong_is_one_line(words: tuple[str, ...], code: int, told: str, broadway: Run) -> None:
    said = broadway("run", "list", *words, check=code)
    assert told in said
    assert len([line for line in said.splitlines() if line.startswith(("broadway:", "Error:"))]) == 1
    assert "Traceback" not in said


@pytest.mark.parametrize("program", ["api", "grader"])
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--colour", "red"), "unknown option --colour; see --help"),
        (("--log-dir", "/dev/null/logs"), "/dev/null/logs"),  # refused after the options were read
    ],
)
def test_a_program_that_cannot_start_is_called_what_was_typed(
    program: str, words: tuple[str, ...], told: str, home: Path
) -> None:
    own = environment(None, home, BROADWAY_TOKEN=TOKEN)
    ended = subprocess.run([*COMMAND, program, *words], cwd=home, env=own, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"broadway {program}: ")
    assert told in line


def test_debug_shows_where_it_went_wrong(broadway: Run) -> None:
    with pytest.raises(Exception, match="missing or wrong"):
        main(["run", "list", "--token", "wrong", "--debug"])


# --- settings --------------------------------------------------------------------------------------------------------


def settings_file(home: Path, text: str, mode: int = 0o600) -> None:
    path = home / "config" / "broadway" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def test_settings_come_from_the_config_file(home: Path, api: ApiProcess, capsys: Any) -> None:
    settings_file(home, f'api = "{api.url}"\ntoken = "{TOKEN}"\n', mode=0o644)
    assert main(["run", "list"]) == 0
    assert "chmod 600" in capsys.readouterr().err
    # A token that is kept for one API is not sent to another.
    assert main(["run", "list", "--api", "http://broadway.example.edu"]) == 2
    told = capsys.readouterr().err
    assert f"its token is for {api.url}" in told
    assert TOKEN not in told


@pytest.mark.parametrize(
    ("text", "told"), [("tokn = 'x'", "no setting 'tokn'"), ("token = 7", "token must be text"), ("=", "Invalid")]
)
def test_a_faulty_config_file_is_one_line(text: str, told: str, home: Path, capsys: Any) -> None:
    settings_file(home, text)
    assert main(["run", "list"]) == 2
    assert told in capsys.readouterr().err


def test_the_token_of_the_cluster_that_was_started_here_is_found(home: Path, api: ApiProcess, capsys: Any) -> None:
    (home / "data").mkdir()
    (home / "data" / "cluster_token").write_text(f"# a remark\n{TOKEN}\n")
    assert main(["run", "list", "--api", api.url]) == 0
    assert main(["run", "list", "--api", "http://broadway.example.edu"]) == 2  # it is nobody else's
    assert "no token for http://broadway.example.edu" in capsys.readouterr().err
