"""The API attacked along its own description by schemathesis: good, bad and chained requests, on each store.

Each answer is held against its schema, and none may be our fault. `make test` gives each store a minute with a fixed
seed; `make fuzz` takes its time and a seed of its own.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from broadway_client.cli.processes import Process, free_port, start
from tests import services

ROOT = Path(__file__).parents[2]
TOKEN = "token-of-the-fuzzer"
SECONDS = int(os.environ.get("BROADWAY_FUZZ_SECONDS", "60"))
SEED = os.environ.get("BROADWAY_FUZZ_SEED", "20260101")
READY_SECONDS = 60.0


@pytest.fixture
def directory() -> Iterator[Path]:
    """In memory where there is such a file system: this is not about fsync."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="broadway-fuzz-", dir=memory if memory.is_dir() else None) as made:
        yield Path(made)


@pytest.fixture(params=["sqlite", "mongo"])
def store(request: pytest.FixtureRequest, directory: Path) -> str:
    """The URL of a new store of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{directory}/broadway.db"
    url = str(request.getfixturevalue("mongo_standalone_url"))
    return services.with_database(url, f"fuzz_{uuid.uuid4().hex}")


@pytest.fixture
def api(store: str, directory: Path) -> Iterator[tuple[Process, str]]:
    """An API with short leases, so that jobs whose worker went away come back while the fuzzer is at work."""
    port = free_port()
    options = ["--port", str(port), "--data-dir", str(directory), "--heartbeat-interval", "1", "--lease-seconds", "3"]
    options += ["--auth-failures-per-minute", "1000000"]  # it tries what an attacker would, from one address
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BROADWAY_")}
    environment |= {"BROADWAY_TOKEN": TOKEN, "BROADWAY_STORE": store}
    process = start([sys.executable, ROOT / "api.py", *options], log=directory / "api", environment=environment)
    try:
        yield process, _ready(process, f"http://127.0.0.1:{port}")
    finally:
        process.kill()


def _ready(process: Process, url: str) -> str:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            if httpx.get(f"{url}/healthz").is_success:
                return url
        except httpx.TransportError:
            pass
        assert process.exit_code is None, process.output()
        assert time.monotonic() < deadline, process.output()
        time.sleep(0.05)


@pytest.mark.timeout(SECONDS + 600)
def test_the_api_does_what_its_description_says(api: tuple[Process, str], directory: Path) -> None:
    process, url = api
    _fuzz(url, directory / "single", "coverage,fuzzing", SECONDS // 2)
    _fuzz(url, directory / "chained", "stateful", SECONDS - SECONDS // 2)
    assert process.exit_code is None
    assert httpx.get(f"{url}/healthz", timeout=60).is_success
    assert process.stop(30) == 0
    faults = [line for line in process.output().splitlines() if " ERROR " in line or "Traceback" in line]
    assert not faults, process.output()[-20_000:]


def _fuzz(url: str, log: Path, phases: str, seconds: int) -> None:
    """Fail with all that the fuzzer says, if it found anything or tried nothing."""
    fuzzer = start(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", ROOT / "tests/fuzz/schemathesis.toml", "run"),
            *(f"{url}/openapi.json", "--header", f"Authorization: {TOKEN}", "--no-color"),
            # workers.py puts the worker's id into every request; tests/api asks what happens without.
            *("--checks", "all", "--exclude-checks", "missing_required_header"),
            *("--exclude-path-regex", "/worker_ws/"),  # it speaks no WebSocket
            *("--phases", phases, "--max-time", str(seconds), "--seed", SEED),
        ],
        log=log,
        environment=os.environ | {"FUZZ_URL": url, "FUZZ_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)},
    )
    try:
        status = fuzzer.wait(seconds + 240)
    finally:
        fuzzer.kill()
    assert status == 0, f"again with BROADWAY_FUZZ_SEED={SEED}\n{fuzzer.output()}"
    # On a very busy machine it may be few; on an idle one it tries forty a second.
    assert re.search(r"[1-9]\d* generated", fuzzer.output()), fuzzer.output()
