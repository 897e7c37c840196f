"""Broadway beside its peers: python -m benchmarks.peers [--quick] [--json FILE]     `make bench-peers` installs them

Each round starts every system once, on empty stores and with two worker processes; hands in 5,000 jobs that do nothing
while the workers run, and waits until the last result is stored. What is shown are medians over the rounds. CPU time
is that of the broker, the workers and whoever handed the jobs in. Latency is from handing in one job, with nothing else
to do, until it runs.
"""

from __future__ import annotations

import os
import sys
import time

from benchmarks.figures import Figure, main
from benchmarks.peers.brokers import rabbitmq
from benchmarks.peers.report import behind, figures, table
from benchmarks.peers.systems import BROADWAY, PEERS
from benchmarks.peers.trial import Trial, run

JOBS, QUICK_JOBS = 5_000, 1_000
LATENCIES, QUICK_LATENCIES = 100, 30
ROUNDS, QUICK_ROUNDS = 5, 1


async def measure(quick: bool) -> list[Figure]:
    """Measure all, round by round; print what there is to say in words."""
    jobs, latencies, rounds = (QUICK_JOBS, QUICK_LATENCIES, QUICK_ROUNDS) if quick else (JOBS, LATENCIES, ROUNDS)
    trials: dict[str, list[Trial]] = {system.name: [] for system in BROADWAY + PEERS}
    loads = [os.getloadavg()[0]]
    with rabbitmq() as shared:
        for number in range(1, rounds + 1):
            for system in BROADWAY + PEERS:
                trial = await run(system, shared, jobs=jobs, latencies=latencies)
                trials[system.name].append(trial)
                print(f"{number}/{rounds} {system.name}: {trial.jobs_per_second:.0f} jobs/s", file=sys.stderr)
            loads.append(os.getloadavg()[0])
    date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    print(
        f"{date}, {os.cpu_count()} cores, {jobs} jobs, medians of {rounds}, load {min(loads):.1f} to {max(loads):.1f}\n"
    )
    print(f"{table(trials)}\n\nNot ahead:\n\n{behind(trials)}\n")
    return figures(trials)


if __name__ == "__main__":
    main(measure)
