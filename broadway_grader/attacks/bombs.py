"""Using up the machine: processes, memory, disk, output. Each bomb has a cap of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from broadway_grader.attacks.attack import (
    MEMORY,
    MIB,
    PIDS,
    ROOT,
    Attack,
    Evidence,
    Level,
    both,
    in_vain,
    python,
    sh,
    survived,
)

#: Bytes that an output bomb prints to each stream.
_FLOOD = 100 * MIB
#: Bytes that the grader itself may grow by meanwhile, all that runs beside it included.
_GROWTH = 48 * MIB


def _output_bounded(evidence: Evidence) -> Iterable[str]:
    for name in ("stdout", "stderr"):
        output = getattr(evidence.last, name)
        if (kept := len(output.text.encode())) > 4 * evidence.limits.log_bytes:
            yield f"{kept} bytes of {name} were kept"
        if not output.truncated:
            yield f"{name} is not marked as truncated"
    if evidence.grown > _GROWTH:
        yield f"the grader grew by {evidence.grown // MIB} MiB"


def _output_legible(evidence: Evidence) -> Iterable[str]:
    try:
        str(evidence.result.to_wire()).encode()
    except UnicodeEncodeError:
        yield "the result cannot be sent as UTF-8"


BOMBS: Sequence[Attack] = (
    Attack(
        name="fork-bomb",
        at_start=True,
        tries="multiply without end (256 times at most)",
        # The count needs no further process: at that point there is none to be had.
        stages=[
            sh(
                f"""
                bomb() {{ [ $1 = 0 ] || {{ bomb $(($1 - 1)) & bomb $(($1 - 1)) & }}; sleep 3; }}
                bomb 7 2>/dev/null &
                sleep 2
                set -- /proc/[0-9]*
                [ $# -le {PIDS} ] || breach "$# processes at once"
                """,
                timeout=20,
            )
        ],
        check=survived,
    ),
    Attack(
        name="process-table",
        tries="fill the table of processes with threads (600 at most)",
        stages=[
            python(
                f"""
                import threading
                done = threading.Event()
                count = 0
                threading.stack_size(65536)
                try:
                    while count < 600:
                        threading.Thread(target=done.wait, daemon=True).start()
                        count += 1
                except RuntimeError:
                    pass
                done.set()
                if count >= {PIDS} + 8:
                    breach(count, "threads at once")
                """
            )
        ],
    ),
    Attack(
        name="memory-bomb",
        tries="use more memory than it may have (800 MiB at most)",
        at_start=True,
        stages=[
            sh(
                f"""
                size={800 * MIB}
                got=$(head -c $size /dev/zero | tail -c $size | wc -c)
                [ "${{got:-0}}" -lt $size ] || breach "$size bytes of memory"
                """,
                memory=MEMORY,
            )
        ],
        check=survived,
    ),
    Attack(
        name="memory-bomb-of-many",
        tries="use more memory than it may have, each of several processes a part (400 MiB at most)",
        runtimes=frozenset({"docker"}),  # the sandbox bounds the memory of each process, and says so
        stages=[
            python(
                """
                children = []
                for _ in range(8):
                    child = os.fork()
                    if child == 0:
                        kept = b"x" * (50 * 1024**2)
                        time.sleep(5)
                        os._exit(0)
                    children.append(child)
                if all(os.waitpid(child, 0)[1] == 0 for child in children):
                    breach("400 MiB of memory")
                """
            )
        ],
    ),
    Attack(
        name="memory-files",
        tries="use more memory than it may have as files in memory",
        stages=[
            sh(
                """
                for directory in /tmp /dev/shm; do
                    head -c $((TMP_BYTES + 16777216)) /dev/zero > $directory/big 2>/dev/null
                    set -- $(wc -c $directory/big 2>/dev/null)
                    [ "${1:-0}" -le $TMP_BYTES ] || breach "$1 bytes in $directory"
                    rm -f $directory/big
                done
                """,
                user=ROOT,
                memory=None,  # as much as a stage has, or that would be the bound
            )
        ],
        check=survived,
    ),
    Attack(
        name="disk-bomb-outside",
        tries="fill the disk with files outside of /job",
        runtimes=frozenset({"docker"}),  # the sandbox has no place to write to but /job and memory
        stages=[
            sh(
                """
                i=0; while [ $((i * 8388608)) -lt $((FILE_BYTES + 67108864)) ]; do
                    head -c 8388608 /dev/zero > /var-$i || exit 1; i=$((i + 1))
                done
                sleep 12  # seen to have done it, it is ended here at the latest
                breach "$i files of 8 MiB"
                """,
                user=ROOT,
                memory=None,
            )
        ],
        check=survived,
    ),
    Attack(
        name="file-bomb-outside",
        tries="use up the disk's table of files with empty ones outside of /job",
        level=Level.SHOULD,  # on an engine elsewhere, or one that the grader is not root beside, nobody can count them
        runtimes=frozenset({"docker"}),
        stages=[
            sh(
                """
                i=0; while [ $i -lt $((FILE_BYTES / 4096 + 2000)) ]; do : > /var-$i || exit 1; i=$((i + 1)); done
                sleep 12
                breach "$i files"
                """,
                user=ROOT,
            )
        ],
        check=survived,
    ),
    Attack(
        name="output-bomb",
        tries="print without end and without line ends, to both streams (100 MiB each)",
        stages=[sh(f"head -c {_FLOOD} /dev/zero & head -c {_FLOOD} /dev/zero >&2; wait")],
        check=_output_bounded,
    ),
    Attack(
        name="output-of-junk",
        tries="print invalid UTF-8, lone surrogates, NUL bytes and terminal escapes",
        stages=[sh(r"printf '\377\376\355\240\200\300\200\0\033]0;title\007\033[2J\302\233' | tee /dev/stderr; echo")],
        check=both(in_vain, _output_legible),
    ),
    Attack(
        name="open-file-bomb",
        tries="open files without end (10,000 at most)",
        stages=[
            python(
                """
                import resource
                most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
                resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
                count = 0
                try:
                    while count < 10000:
                        os.open("/dev/null", os.O_RDONLY)
                        count += 1
                    breach(count, "open files")
                except OSError:
                    pass
                """
            )
        ],
    ),
)
