"""A secret on its way to its stage: nobody else sees it, on this machine or by the API, whatever the stage prints."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.e2e.classes import run_config, stage
from tests.e2e.fleet import TOKEN, Fleet

VALUE = "-----BEGIN-----\nkey-of-nobody-at-all\n-----END-----\n"
LINE = "key-of-nobody-at-all"

#: It carries the value to the next stage, whose output is masked, too, and waits to be looked at.
LEAKS = """
test "$GIVEN" != other || exit 3
echo "given: $KEY"; printf '%s' "$KEY" | base64 -w 0 >&2
echo "$KEY" | tail -n 2 | head -n 1 > /job/carried
while test ! -e /job/looked_at; do sleep 0.1; done
"""


def files_with(text: str, directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_a_secret_is_in_its_stages_environment_and_nowhere_else(fleet: Fleet, runtime: str) -> None:
    with httpx.Client(base_url=fleet.url, headers={"Authorization": TOKEN}) as http:
        http.put("/api/v1/secrets/deploy-key", json={"value": VALUE}).raise_for_status()
    fleet.start_grader(runtime=runtime)
    env = {"KEY": {"secret": "deploy-key"}}
    stages = [stage(LEAKS, env=env, timeout=60), stage("cat /job/carried; rm /job/carried")]
    run_id = fleet.grade(run_config({"NET_ID": "ada"}, stages=stages))
    (job,) = fleet.await_running(run_id)

    fleet.wait_for(lambda: list(fleet.directory.rglob("carried")), "the stage to begin")
    (carried,) = fleet.directory.rglob("carried")
    assert [path for path in files_with(LINE, fleet.directory) if path.name != "carried"] == []
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(LINE.encode() in command for command in commands)
    (carried.parent / "looked_at").touch()
    assert fleet.finish(run_id)["state"] == "finished", fleet.output()

    job = fleet.client.get(f"grading_job/{job['job_id']}")
    assert job["state"] == "succeeded", job
    log = fleet.client.log(job["job_id"])
    assert log[0]["stdout"] == "given: ***\n"
    assert log[0]["stderr"].startswith("***")
    assert log[1]["stdout"] == "***\n"
    assert job["pipeline"][0]["env"] == env
    assert files_with(LINE, fleet.directory) == []
