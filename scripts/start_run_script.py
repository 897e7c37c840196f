#!/usr/bin/env python3
"""Creates and starts a grading run: `python3 scripts/start_run_script.py <path to config json> <cluster token>`.

Prints the run's id, and nothing else, on stdout. Needs the standard library only, so that it can be copied to
wherever a course keeps its config files; where `rich` is installed, `--wait` draws a bar.
"""

from __future__ import annotations

import argparse
import http.client
import importlib.util
import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

EXIT_CODES = """\
exit codes:
  0  the run was started; with --wait: it finished
  1  with --wait: the run failed or was cancelled
  2  nothing was started: the config, the token or the command line is wrong
  3  the API could not be reached or did not answer sensibly
"""

#: What `GET grading_run/{id}` answers: docs/protocol.md.
Status = dict[str, Any]
Show = Callable[[Status], None]

ENDED = ("finished", "failed", "cancelled")
_PAUSE = 1.0  # seconds between two looks at a run that is being waited for
_ANSWER = 30.0  # seconds that the API has for one answer
_PHASES = {"pre_processing": "pre-processing", "students": "grading", "post_processing": "post-processing"}


class ScriptError(Exception):
    """Ends the script with one clear message and an exit code."""

    exit_code = 3


class BadInput(ScriptError):
    """The API, or we, refused what the user gave; asking again would not help."""

    exit_code = 2


class Unreachable(ScriptError):
    """No answer, or one that says to come back later; asking again may help."""


class Api:
    """The few calls of `docs/protocol.md` that starting and following a run take.

    Calls are repeated for up to `patience` seconds while the API is away, and then raise Unreachable.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        patience: float,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise BadInput(f"{url!r} is no http:// or https:// URL")
        self._base = url.rstrip("/") + "/api/v1/"
        self._token = token
        self._patience = patience
        self._sleep = sleep
        self._clock = clock

    def create_run(self, config: object) -> str:
        """The id of a new run. The key makes it one run even if an answer got lost and the request was repeated."""
        run_id = self._call("POST", "grading_run", config, {"Idempotency-Key": str(uuid.uuid4())})["grading_run_id"]
        return str(run_id)

    def start_run(self, run_id: str) -> None:
        """Start the run; it may have been started by a request of ours whose answer got lost."""
        try:
            self._call("POST", f"grading_run/{run_id}")
        except BadInput:
            if self.run(run_id)["state"] == "ready":
                raise

    def get(self, path: str) -> Status:
        """What `GET /api/v1/<path>` answers."""
        return self._call("GET", path)

    def run(self, run_id: str) -> Status:
        """The run's state and counts."""
        return self.get(f"grading_run/{run_id}")

    def jobs(self, run_id: str) -> Iterator[dict[str, Any]]:
        """The run's jobs in roster order, pre-processing first, post-processing last."""
        after = ""
        while True:
            page = self.get(f"grading_run/{run_id}?jobs=all&limit=1000{after}")
            yield from page["jobs"]
            if page["next"] is None:
                return
            after = f"&after={page['next']}"

    def log(self, job_id: str) -> list[dict[str, Any]]:
        """What each stage of a job wrote."""
        stages: list[dict[str, Any]] = self.get(f"grading_job/{job_id}/log")["stages"]
        return stages

    def _call(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Status:
        deadline, pause = self._clock() + self._patience, 0.25
        while True:
            try:
                return self._call_once(method, path, body, headers or {})
            except Unreachable:
                if self._clock() + pause > deadline:
                    raise
            self._sleep(pause)
            pause = min(2 * pause, 5.0)

    def _call_once(self, method: str, path: str, body: object, headers: Mapping[str, str]) -> Status:
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked when this object was made
            self._base + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": self._token, "Content-Type": "application/json", **headers},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER) as answer:  # noqa: S310
                content = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(error.code, error.read()) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLCertVerificationError):
                problem = f"the certificate of {self._base} is not trusted: {reason.verify_message}"
                raise BadInput(f"{problem}; name its authority in SSL_CERT_FILE") from None
            if isinstance(reason, ssl.SSLError):
                raise BadInput(f"{self._base} does not speak HTTPS ({reason}); write http:// in its place") from None
            if isinstance(reason, ConnectionResetError) and self._base.startswith("http:"):
                reason = f"{reason}; if it speaks HTTPS, write https:// in --url"
            raise Unreachable(f"no answer from {self._base}: {reason or type(error).__name__}") from None
        try:
            data: Status = json.loads(content)["data"]
        except (ValueError, KeyError, TypeError):
            raise Unreachable(f"{self._base} does not answer like the Broadway API") from None
        return data


def _refusal(status: int, content: bytes) -> ScriptError:
    """What an answer other than 2xx means: its message, and each fault of the config with its path."""
    try:
        body = json.loads(content)
        data = body.get("data") or body
        lines = [str(data["message"])]
    except (ValueError, KeyError, TypeError, AttributeError):
        data, lines = {}, [f"the API answered {status}"]
    if status >= 500 or status in (408, 429):
        return Unreachable(lines[0])
    if status == 401:
        return BadInput(f"the cluster token was refused: {lines[0]}")
    lines += [f"  {fault['path']}: {fault['message']}" for fault in data.get("errors", ())]
    if data.get("more_errors"):
        lines.append(f"  and {data['more_errors']} more")
    return BadInput("\n".join(lines))


def read_config(path: Path) -> object:
    """The JSON in `path`; BadInput with the line and column where it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}: not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8: {error.reason} (byte {error.start})") from None
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None


def follow(api: Api, run_id: str, show: Show, *, pause: float = _PAUSE) -> Status:
    """The run once it has ended; `show` gets each status on the way, the last one included."""
    while True:
        status = api.run(run_id)
        show(status)
        if status["state"] in ENDED:
            return status
        time.sleep(pause)


def jobs_ended(status: Status) -> int:
    """How many of the run's jobs have ended, one way or another."""
    counts: dict[str, int] = status["counts"]
    return counts["succeeded"] + counts["failed"] + counts["cancelled"]


def describe(status: Status) -> str:
    """The run's state and its counts that are not zero, as a person would say it."""
    counts = [f"{number} {name}" for name, number in status["counts"].items() if number]
    return f"{_PHASES.get(status['state'], status['state'])}: {', '.join(counts)}"


@contextmanager
def progress(stream: TextIO) -> Iterator[Show]:
    """Shows a run's progress: a live bar on a terminal, elsewhere a line whenever something changed."""
    if not stream.isatty() or importlib.util.find_spec("rich") is None:
        yield _line_by_line(stream)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(file=stream)) as bar:
        task = bar.add_task("", total=None)

        def show(status: Status) -> None:
            total = sum(status["counts"].values())
            bar.update(task, completed=jobs_ended(status), total=total, description=describe(status))

        yield show


def _line_by_line(stream: TextIO) -> Show:
    last = ""

    def show(status: Status) -> None:
        nonlocal last
        line = describe(status)
        if line != last:
            last = line
            print(line, file=stream, flush=True)

    return show


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line, with what the environment gives filled in."""
    parser = argparse.ArgumentParser(
        description="Create and start a grading run; print its id.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", type=Path, help="path to the run's config, a JSON file")
    parser.add_argument(
        "token", nargs="?", help="cluster token [BROADWAY_TOKEN, which unlike an argument `ps` does not show]"
    )
    parser.add_argument("--host", help="host of the API [BROADWAY_HOST, default 127.0.0.1]")
    parser.add_argument("--port", help="port of the API [BROADWAY_PORT, default 1470]")
    parser.add_argument("--url", help="URL of the API, in place of host and port; for https")
    parser.add_argument("--wait", action="store_true", help="follow the run to its end")
    parser.add_argument(
        "--patience", type=float, default=120.0, help="seconds that the API may be away while waiting [default 120]"
    )
    options = parser.parse_args(arguments)
    options.token = options.token or os.environ.get("BROADWAY_TOKEN")
    if not options.token:
        parser.error("no cluster token: give it as the second argument or in BROADWAY_TOKEN")
    host = options.host or os.environ.get("BROADWAY_HOST") or "127.0.0.1"
    port = options.port or os.environ.get("BROADWAY_PORT") or "1470"
    options.url = options.url or f"http://{host}:{port}"
    return options


def main(arguments: Sequence[str]) -> int:
    """Run the script; its exit code."""
    options = parse(arguments)
    try:
        config = read_config(options.config)
        # A wrong host should not take two minutes to find out; a restarting API should not be noticed.
        api = Api(options.url, options.token, patience=min(10.0, options.patience))
        run_id = api.create_run(config)
        api.start_run(run_id)
        print(run_id, flush=True)
        if not options.wait:
            return 0
        with progress(sys.stderr) as show:
            end = follow(Api(options.url, options.token, patience=options.patience), run_id, show)
    except ScriptError as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130  # as a shell reports SIGINT; the run goes on without us
    return 0 if end["state"] == "finished" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
