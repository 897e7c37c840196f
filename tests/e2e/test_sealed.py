"""A student's stage forges grades in every way; the trusted stage's results stand, or none do."""

from __future__ import annotations

import json

from tests.e2e.classes import run_config, stage
from tests.e2e.fleet import Fleet

FORGERIES = {
    "nothing": "true",
    "plain file": 'echo "$FORGED" > results.json; chmod 400 results.json',
    "link to a host file": "ln -s /etc/passwd results.json",
    "link to a file": 'echo "$FORGED" > mine; chmod 444 mine; ln -s mine results.json',
    "hard link": 'echo "$FORGED" > mine; chmod 444 mine; ln mine results.json',
    "fifo": "mkfifo results.json",
    "directory": "mkdir -p results.json/a/b; cd results.json; for n in $(seq 300); do : > f$n; done; chmod 0 a .",
    # It would go on writing, if it could outlive its stage.
    "rewriter": """(setsid sh -c 'while :; do echo "$FORGED" > /job/results.json; done' &); sleep 0.3""",
}

TRUSTED = """
test -z "$SILENT" || exit 0
test ! -e results.json || exit 7
echo '{"tests": [{"name": "adds", "score": 3, "max_score": 4}, {"score": 4, "max_score": 6}]}' > results.json
"""

#: What a later stage writes comes too late.
AFTER = stage('echo "$FORGED" > /job/results.json', timeout=20)


def test_a_forged_grade_is_never_taken_for_the_trusted_stages(fleet: Fleet, runtime: str) -> None:
    fleet.start_grader(runtime=runtime)
    students = [
        {"WHO": name, "FORGE": "cd /job; " + script, "SILENT": silent}
        for name, script in FORGERIES.items()
        for silent in ("", "yes")
    ]
    grading = stage("cd /job" + TRUSTED, results=True, timeout=20)
    run_id = fleet.grade(
        run_config(
            *students,
            env={"FORGED": '{"score": 100}'},
            stages=[stage('eval "$FORGE"', timeout=20), grading, AFTER],
            post_processing_pipeline=[stage("cat /job/jobs.json")],
        )
    )
    assert fleet.finish(run_id)["state"] == "finished"

    jobs = fleet.jobs(run_id)
    for job in jobs:
        said = (job["state"], job["reason"], job["score"], job["max_score"])
        if job["student"]["SILENT"]:
            assert said == ("failed", "stage_failed", None, None), job
        else:
            assert said == ("succeeded", None, 7, 10), job
    good, silent = (fleet.client.get(f"grading_job/{job['job_id']}") for job in jobs[:2])
    assert good["results"]["tests"][0] == {"name": "adds", "score": 3, "max_score": 4}
    assert silent["results"] is None
    assert silent["info"][1]["results_errors"] == [{"path": "$", "message": "there is no /job/results.json"}]
    assert "there is no /job/results.json" in silent["info"][1]["message"]

    (published,) = fleet.jobs(run_id, "post_processing")
    scores = json.loads(fleet.stdout(published)[0])
    assert [(job["student"], job["score"]) for job in scores] == [(job["student"], job["score"]) for job in jobs]
