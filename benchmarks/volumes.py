"""What it costs to make and to remove a job's /job, in each of the ways there are; for docs/performance.md.

python -m benchmarks.volumes [directory]      as root; the directory tells which file system is measured
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from broadway_grader.volumes import VOLUMES
from broadway_grader.volumes.port import Bound

BOUND = Bound(bytes=1024**3, files=100_000)
ROUNDS = 50
PIECE = b"x" * 1024**2


def nothing(job: Path) -> None:
    """A job that leaves /job as it is."""
    del job


def files(job: Path) -> None:
    """What a generous compilation leaves."""
    for number in range(1000):
        (job / f"file-{number}").write_bytes(PIECE[:10_000])


def large(job: Path) -> None:
    """Half of what a job may keep."""
    with (job / "file").open("wb") as file:
        for _ in range(512):
            file.write(PIECE)


def measure(way: str, fill: Callable[[Path], None], directory: Path, rounds: int) -> tuple[float, float, float]:
    """Milliseconds: the medians of making and of removing, and the longest of both together."""
    volumes = VOLUMES[way](BOUND, directory)
    volumes.open()
    making, removing = [], []
    for _ in range(rounds):
        begun = time.perf_counter()
        volume = volumes.make(directory / "volume")
        making.append(1000 * (time.perf_counter() - begun))
        fill(volume.path)
        begun = time.perf_counter()
        volume.remove()
        removing.append(1000 * (time.perf_counter() - begun))
    both = max(map(sum, zip(making, removing, strict=True)))
    return statistics.median(making), statistics.median(removing), both


def main(arguments: list[str]) -> None:
    """Print the table."""
    print("| way | /job holds | made in | removed in | the longest of both |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=arguments[0] if arguments else None) as name:
        for way in VOLUMES:
            for title, fill, rounds in (
                ("nothing", nothing, ROUNDS),
                ("1,000 files of 10 kB", files, ROUNDS),
                ("a file of 512 MiB", large, 5),
            ):
                made, removed, longest = measure(way, fill, Path(name), rounds)
                print(f"| `{way}` | {title} | {made:.1f} ms | {removed:.1f} ms | {longest:.1f} ms |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
