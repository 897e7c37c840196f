"""Run every benchmark, one after another, each in a process of its own; print one table and write one JSON file.

python -m benchmarks [--quick] [--json FILE]      exit status 1 if a bound is not kept, 2 if a benchmark broke
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.figures import Figure, read, table

#: The modules that `make bench` runs, in this order.
BENCHMARKS: tuple[str, ...] = ("dispatch", "growth", "latency", "containers", "cost", "fleet", "queue", "live_output")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--json", type=Path, metavar="FILE", default=Path("benchmarks/results.json"))
    given = parser.parse_args()
    figures: list[Figure] = []
    broken = []
    for name in BENCHMARKS:
        print(f"\n{name}", flush=True)
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            command = [sys.executable, "-m", f"benchmarks.{name}", "--json", file.name]
            if subprocess.run(command + ["--quick"] * given.quick, check=False).returncode:
                broken.append(name)
            else:
                figures += read(Path(file.name))
    print(f"\n{table(figures)}")
    given.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")
    for name in broken:
        print(f"benchmarks.{name} broke", file=sys.stderr)
    return 2 if broken else int(any(figure.passed is False for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
