"""Grading runs to test with, small enough to read at a glance; their stages are shell scripts that run anywhere."""

from __future__ import annotations

from typing import Any

Stage = dict[str, Any]


def stage(script: str, **more: object) -> Stage:
    """A stage that runs a shell script in the smallest image there is."""
    return {"image": "broadway-busybox:latest", "entry_point": ["sh", "-c", script], **more}


def run_config(*students: str | dict[str, str], stages: list[Stage] | None = None, **more: object) -> dict[str, Any]:
    """A run whose students' one stage is a script of their own each, unless `stages` says otherwise."""
    return {
        "student_pipeline": stages or [stage('eval "$SCRIPT"')],
        "students": [{"SCRIPT": student} if isinstance(student, str) else student for student in students],
        **more,
    }


def three_stages() -> list[Stage]:
    """Fetch, grade, report: each stage needs the file of the one before."""
    return [
        stage('echo "$NETID" > /job/submission', env={"NETID": "$NET_ID"}),
        stage("wc -c < /job/submission > /job/score"),
        stage('echo "score $(cat /job/score) $(cat /job/submission)"'),
    ]
