"""Run a campaign of faults: `python -m tests.chaos --seed 1 --minutes 2 --store sqlite|mongo`.

Exits with status 0 if every promise was kept, 1 if not, and then prints what it takes to look into it.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
from pathlib import Path

from tests.chaos.campaign import Settings, run, stopwatch


def main() -> int:
    """Run what the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Kill, freeze, cut off; then count.")
    parser.add_argument("--seed", type=int, help="the plan of faults and load follows from it; default: a random one")
    parser.add_argument("--minutes", type=float, default=2.0, help="with faults; default 2")
    parser.add_argument("--store", choices=("sqlite", "mongo", "both"), default="both")
    parser.add_argument("--docker", type=int, default=1, help="graders that run containers; default 1")
    parser.add_argument("--keep", type=Path, help="directory to copy the processes' logs and records to")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    stores = ("sqlite", "mongo") if options.store == "both" else (options.store,)
    failed = False
    for store in stores:
        settings = Settings(
            seed=seed,
            seconds=60 * options.minutes / len(stores),
            store=store,
            docker_graders=options.docker,
            keep=options.keep,
        )
        say = stopwatch(lambda text: print(text, flush=True))  # noqa: T201 - it talks to a terminal
        say(f"campaign {settings}")
        report = asyncio.run(run(settings, say))
        print(report, flush=True)  # noqa: T201
        failed |= bool(report.problems)
    return int(failed)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stopped like Ctrl-C: everything is ended
    sys.exit(main())
