"""/job/results.json, which the host reads: forging a grade, or having the host read or wait for something else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from broadway_grader.attacks.attack import Attack, Evidence, ending, python, sh

_FORGED = """echo '{"score": 100, "output": "forged"}'"""
_EARNED = """echo '{"score": 1}'"""


def _no_results(evidence: Evidence) -> Iterable[str]:
    if evidence.last.results is not None:
        yield f"these were taken for results: {str(evidence.last.results)[:200]}"


def _earned(evidence: Evidence) -> Iterable[str]:
    if evidence.last.results is None:
        yield f"the trusted stage was kept from handing in its results: {ending(evidence.last)}"
    elif evidence.last.results["score"] != 1:
        yield "the trusted stage's results were replaced"


RESULTS: Sequence[Attack] = (
    Attack(
        name="forged-results",
        tries="leave results for a trusted stage that hands in none",
        stages=[sh(f"{_FORGED} > /job/results.json"), sh("true", results=True)],
        check=_no_results,
    ),
    Attack(
        name="forged-by-survivor",
        tries="write results from a process that outlives its stage, over and over",
        stages=[
            sh(
                f"""
                forge() {{ while :; do {_FORGED} > /job/.forged; mv -f /job/.forged /job/results.json; done; }}
                forge </dev/null >/dev/null 2>&1 &
                (trap '' TERM HUP; forge) </dev/null >/dev/null 2>&1 &
                """
            ),
            sh(f"{_EARNED} > /job/results.json; sleep 1", results=True),
        ],
        check=_earned,
    ),
    Attack(
        name="forged-by-hard-link",
        tries="keep a second name of the file that a trusted stage will write",
        stages=[
            sh(f"{_FORGED} > /job/results.json; ln /job/results.json /job/other; chmod 666 /job/other"),
            sh("true", results=True),
        ],
        check=_no_results,
    ),
    Attack(
        name="results-kept-out",
        tries="leave what cannot be removed where a trusted stage's results go",
        stages=[
            sh(
                """
                mkdir -p /job/results.json/shut/deep; : > /job/results.json/shut/file; mkfifo /job/results.json/pipe
                ln -s "$HOST_DIRECTORY" /job/results.json/link
                chmod 000 /job/results.json/shut; chmod 555 /job/results.json
                """
            ),
            sh(f"{_EARNED} > /job/results.json", results=True),
        ],
        check=_earned,
    ),
    *(
        Attack(
            name=f"results-as-{kind}",
            tries=f"have the host read results that are {what}",
            stages=[sh(script, results=True)],
            check=_no_results,
        )
        for kind, what, script in (
            ("link", "a link to a file of the host", 'ln -s "$HOST_FILE" /job/results.json'),
            ("shadow", "a link to /etc/shadow", "ln -s /etc/shadow /job/results.json"),
            ("pipe", "a pipe that nobody ever writes to", "mkfifo /job/results.json"),
            ("directory", "a directory", "mkdir /job/results.json"),
            ("loop", "a link to itself", "ln -s results.json /job/results.json"),
            ("device", "a terminal, by a link", "ln -s /dev/tty /job/results.json"),
            ("giant", "as large as a file can be, and empty", "truncate -s $FILE_BYTES /job/results.json"),
            ("junk", "no UTF-8", r"printf '{\"score\": 1, \"output\": \"\377\"}' > /job/results.json"),
        )
    ),
    Attack(
        name="results-as-socket",
        tries="have the host read results that are a socket",
        stages=[
            python(
                """
                with socket.socket(socket.AF_UNIX) as line:
                    line.bind("/job/results.json")
                """,
                results=True,
            )
        ],
        check=_no_results,
    ),
    Attack(
        name="results-as-nesting",
        tries="have the host parse results that are nested without end",
        stages=[python('open("/job/results.json", "w").write("[" * 500_000 + "]" * 500_000)', results=True)],
        check=_no_results,
    ),
)
