"""/job, which the host makes, reads and removes: what a stage leaves there must be harmless to whoever does that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from broadway_grader.attacks.attack import ROOT, Attack, Evidence, Level, ended_for, in_vain, python, sh, survived
from broadway_grader.domain import Reason


def _tried_or_stopped(evidence: Evidence) -> Iterable[str]:
    """Where /job is only watched, a tree that is deeper than the watch will follow is not allowed to grow."""
    if evidence.last.reason is Reason.DISK_LIMIT:
        return evidence.breaches()
    return in_vain(evidence)


JOB_DIRECTORY: Sequence[Attack] = (
    Attack(
        name="links-to-the-host",
        tries="have files of the host removed, changed or read through links in /job",
        # To the bait alone: followed to / by a grader that removes everything, they would take the machine with them.
        stages=[
            sh(
                """
                cd /job
                ln -s "$HOST_DIRECTORY" host; ln -s "$HOST_FILE" file; ln -s loop loop
                mkdir -p deep/er; ln -s "$HOST_DIRECTORY" deep/er/host
                ln -s "../../../../../../../../../../../..$HOST_DIRECTORY" deep/er/up
                ln -s "$HOST_DIRECTORY" moved-1; ln -s "$HOST_DIRECTORY" moved-2
                for name in results.json roster.json results; do ln -s "$HOST_FILE" $name; done
                """
            )
        ],
    ),
    Attack(
        name="unremovable",
        tries="leave what cannot be removed: deep trees, odd names, no permissions, pipes, sparse giants",
        stages=[
            sh(
                """
                cd /job
                mkfifo fifo; mkdir -p shut/in; : > shut/in/file; chmod 000 shut/in shut
                mkdir -p fixed/in; : > fixed/in/file; chmod 555 fixed/in fixed
                : > -rf; : > ' '; : > 'new
line'; : > "$(printf 'bad\\377utf8')"; mkdir moved-1 moved-2
                truncate -s $FILE_BYTES sparse
                """
            ),
            python(
                """
                os.chdir("/job")
                for _ in range(1500):
                    os.mkdir("d" * 100)
                    os.chdir("d" * 100)
                os.mkfifo("fifo")
                with socket.socket(socket.AF_UNIX) as line:
                    line.bind("socket")
                """
            ),
        ],
        check=_tried_or_stopped,
    ),
    Attack(
        name="swapped-links",
        tries="swap directories for links to the host while /job is counted",
        stages=[
            sh(
                """
                cd /job; mkdir -p swap/deep/er; : > swap/deep/file; ln -s "$HOST_DIRECTORY" link
                end=$(($(date +%s) + 3))
                while [ $(date +%s) -lt $end ]; do for _ in 1 2 3 4 5 6 7 8 9 10; do
                    mv swap aside; mv link swap; mv swap link; mv aside swap
                    mv swap/deep aside; ln -s "$HOST_DIRECTORY" swap/deep; rm swap/deep; mv aside swap/deep
                done; done
                """
            )
        ],
    ),
    Attack(
        name="disk-bomb",
        tries="fill the disk with one file in /job",
        stages=[sh("head -c $((JOB_BYTES + 16777216)) /dev/zero > /job/bomb || exit 1")],
        check=ended_for(Reason.DISK_LIMIT),
    ),
    Attack(
        name="file-bomb",
        tries="use up the disk's table of files with empty ones in /job",
        stages=[
            sh(
                """
                i=0; while [ $i -lt $((JOB_FILES + 1000)) ]; do : > /job/$i || exit 1; i=$((i+1)); done
                """
            )
        ],
        check=ended_for(Reason.DISK_LIMIT),
    ),
    Attack(
        name="hidden-disk-bomb",
        tries="fill the disk with a file in /job that has no name any more",
        level=Level.SHOULD,  # a watch sees it only where it may look into the processes of others
        stages=[
            sh(
                """
                exec 3> /job/bomb; rm /job/bomb
                head -c $((JOB_BYTES + 16777216)) /dev/zero >&3 || exit 1
                sleep 12  # seen to have done it, it is ended here at the latest
                breach "more than $JOB_BYTES bytes"
                """
            )
        ],
        check=survived,
    ),
    Attack(
        name="hard-links",
        tries="have files outside of /job under another name in it",
        at_start=True,
        stages=[
            sh(
                """
                for file in /etc/passwd /proc/self/status "$HOST_FILE" /bin/sh /dev/null; do
                    refused "$file linked" ln "$file" /job/linked; rm -f /job/linked
                done
                """,
                user=ROOT,
            )
        ],
    ),
    Attack(
        name="another-job",
        tries="read and write the directory of a job that runs at the same time",
        stages=[
            sh(
                """
                for start in /job/.. /job/../.. /proc/1/root "$WORK_DIRECTORY" "$WORK_DIRECTORY/jobs" \\
                    /tmp /var/tmp /dev/shm
                do
                    for file in "$start"/*/neighbour "$start"/neighbour "$start"/*/*/neighbour; do
                        if [ -e "$file" ]; then breach "$file"; fi
                    done
                done
                """,
                user=ROOT,
            )
        ],
        neighbour=sh("echo of another > /job/neighbour; echo x > /tmp/neighbour; touch /job/begun; sleep 60"),
    ),
)
