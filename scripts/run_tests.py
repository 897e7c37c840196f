"""Runs the whole of the tests in two halves at once: each waits most of its time, for containers or for databases.

With arguments for pytest it is plain pytest. Ends with 0 if both halves did.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"

#: Left to a target of its own: `make attack-mutations`.
LEFT_OUT = TESTS / "attack" / "test_mutations.py"

#: What works the machine's engine, sandboxes and browser. All else is the other half, whatever is added.
ON_THE_MACHINE = ("grader", "e2e", "attack", "chaos", "browser")


def halves() -> tuple[list[str], list[str]]:
    """The directories of the two halves."""
    found = sorted(path for path in TESTS.iterdir() if any(path.glob("**/test_*.py")))
    machine = [str(path) for path in found if path.name in ON_THE_MACHINE]
    return machine, [str(path) for path in found if path.name not in ON_THE_MACHINE]


def main(arguments: Sequence[str]) -> int:
    """Run them; the second half's report follows that of the first."""
    pytest = [sys.executable, "-m", "pytest"]
    if arguments:
        return subprocess.run([*pytest, *arguments], check=False).returncode
    first, second = halves()
    top = tempfile.mkdtemp(prefix="broadway-tests-")  # a place for each, or one would shut the other's in starting
    with tempfile.TemporaryFile() as report:
        # Its own session: Ctrl-C at the terminal reaches the first half, and the second through us.
        command = [*pytest, *second, f"--basetemp={top}/second"]
        other = subprocess.Popen(command, stdout=report, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            command = [*pytest, *first, f"--ignore={LEFT_OUT}", f"--basetemp={top}/first"]
            status = subprocess.run(command, check=False).returncode
            other_status = other.wait()
        except BaseException:
            other.terminate()
            other.wait()
            raise
        finally:
            report.seek(0)
            os.write(sys.stdout.fileno(), b"\n")
            while chunk := report.read(65_536):
                sys.stdout.buffer.write(chunk)
            sys.stdout.flush()
            subprocess.run(["rm", "-rf", top], check=False)  # it knows how to remove trees of any depth
    return status or other_status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
