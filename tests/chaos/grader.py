"""`grader.py` as it is, but for the runtime, which is a recorded one with or without containers, and shorter pauses.

python -m tests.chaos.grader <record file> <life> fake|docker <options of grader.py>
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from unittest.mock import patch

import grader
from broadway_grader import runtimes
from broadway_grader.errors import SetupError, Unauthorized
from broadway_grader.retry import Backoff
from broadway_grader.runtimes.docker import DockerRuntime
from broadway_grader.runtimes.port import Runtime, Settings
from broadway_grader.workspace import WorkDirectory
from config import GraderConfig
from tests.chaos.fake_runtime import FakeRuntime
from tests.chaos.record import RecordedRuntime, Recorder


def main(arguments: Sequence[str]) -> int:
    """Run the grader; returns its exit status."""
    record, life, kind, *options = arguments
    recorder = Recorder(Path(record), life)

    def fake(settings: Settings) -> Runtime:
        return RecordedRuntime(FakeRuntime(settings), recorder)

    def containers(settings: Settings) -> Runtime:
        return RecordedRuntime(DockerRuntime(settings), recorder)

    kinds = patch.object(runtimes, "RUNTIMES", {"fake": fake, "docker": containers})
    # A campaign's outages last seconds; who waited half a minute after each would not be there for the next.
    patience = patch.object(grader, "Backoff", partial(Backoff, longest=2.0))
    config = dataclasses.replace(GraderConfig.load(options), runtime=kind)  # `--runtime` knows nothing of fakes
    try:
        with kinds, patience, WorkDirectory(Path(config.work_dir)) as directory, grader.start_log(config):
            return asyncio.run(grader.serve(config, directory))
    except (SetupError, Unauthorized) as error:
        print(f"grader: {error}", file=sys.stderr)
        return grader.CANNOT_START


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # as grader.py does, and for the same reason
