"""Living on: beyond the timeout, beyond the stage, in what the next stage runs."""

from __future__ import annotations

from collections.abc import Sequence

from broadway_grader.attacks.attack import Attack, sh, stopped_in_time

LIFETIME: Sequence[Attack] = (
    Attack(
        name="outlive-the-timeout",
        at_start=True,
        tries="live on after its timeout by double fork, a session of its own and ignored signals",
        stages=[
            sh(
                """
                trap '' TERM INT HUP QUIT PIPE
                (setsid sh -c 'trap "" TERM INT HUP; sleep 300' </dev/null >/dev/null 2>&1 &)
                (sleep 300 &)
                while :; do sleep 1; done
                """,
                timeout=2,
            )
        ],
        check=stopped_in_time,
    ),
    Attack(
        name="outlive-the-stage",
        tries="live on in the background after its stage, into the next one",
        stages=[
            sh(
                """
                wait='until [ -e /job/next ]; do sleep 0.1; done; echo was here > /job/grade'
                (setsid sh -c "$wait" </dev/null >/dev/null 2>&1 &)
                """
            ),
            sh('touch /job/next; sleep 1; [ ! -e /job/grade ] || breach "a process of the stage before"'),
        ],
    ),
    Attack(
        name="poison-the-next-stage",
        tries="leave programs and start-up files in /job that the next stage would run by itself",
        stages=[
            sh(
                """
                cd /job
                for name in ls cat sh id date env; do printf '#!/bin/sh\\necho breach: %s\\n' $name > $name; done
                for name in .profile .bashrc .shinit .env; do echo "echo breach: $name" > $name; done
                chmod 777 *
                """
            ),
            sh("ls >/dev/null; cat /dev/null; id >/dev/null; date >/dev/null", working_dir="/job"),
        ],
    ),
)
