"""Getting more rights than a stage was given: capabilities, other users, namespaces, mounts."""

from __future__ import annotations

from collections.abc import Sequence

from broadway_grader.attacks.attack import PYTHON, ROOT, STRANGER, Attack, Level, python, sh

PRIVILEGES: Sequence[Attack] = (
    Attack(
        name="capabilities",
        tries="hold a capability, or be able to get one",
        at_start=True,
        stages=[
            sh(
                """
                while read -r name value; do case $name in CapPrm:|CapEff:|CapBnd:|CapAmb:)
                    [ "$value" = 0000000000000000 ] || breach "$name $value";; esac
                done < /proc/self/status
                """,
                user=ROOT,
            )
        ],
    ),
    Attack(
        name="new-privileges",
        tries="gain privileges from the programs that it runs",
        at_start=True,
        stages=[
            sh(
                """
                while read -r name value; do [ "$name $value" != "NoNewPrivs: 0" ] || breach "NoNewPrivs is off"
                done < /proc/self/status
                """
            )
        ],
    ),
    Attack(
        name="system-call-filter",
        tries="make any system call that there is",
        level=Level.SHOULD,  # gVisor, say, has no need of one
        stages=[
            sh(
                """
                while read -r name value; do [ "$name $value" != "Seccomp: 0" ] || breach "no filter is in force"
                done < /proc/self/status
                """
            )
        ],
    ),
    Attack(
        name="ordinary-user",
        tries="be root in its container without asking",
        level=Level.SHOULD,
        at_start=True,
        stages=[sh('[ "$(id -u)" != 0 ] || breach "it runs as root"')],
    ),
    Attack(
        name="mount",
        tries="mount file systems, bind directories, undo what hides parts of /proc",
        at_start=True,
        stages=[
            sh(
                """
                mkdir -p /tmp/mnt
                refused "tmpfs mounted" mount -t tmpfs none /tmp/mnt
                refused "proc mounted" mount -t proc none /tmp/mnt
                refused "directory bound" mount --bind / /tmp/mnt
                refused "control groups mounted" mount -t cgroup -o rdma cgroup /tmp/mnt
                refused "control groups mounted" mount -t cgroup2 none /tmp/mnt
                refused "root mounted anew" mount -o remount,rw /
                refused "job mounted anew" mount -o remount,bind,dev,suid /job
                refused "mask of /proc/kcore taken off" umount /proc/kcore
                """,
                user=ROOT,
            )
        ],
    ),
    Attack(
        name="namespaces",
        tries="make namespaces of its own, in which it would be root",
        at_start=True,
        stages=[
            sh(
                """
                for kind in U m n p u i; do refused "namespace $kind made" unshare -$kind true; done
                refused "user and mount namespace made" unshare -U -m true
                """,
                user=user,
            )
            for user in (ROOT, STRANGER)
        ],
    ),
    Attack(
        name="device-nodes",
        tries="make device files",
        at_start=True,
        stages=[
            sh(
                """
                for directory in /job /tmp /dev/shm; do
                    refused "character device made in $directory" mknod $directory/made-c c 1 3
                    refused "block device made in $directory" mknod $directory/made-b b 7 200
                    rm -f $directory/made-c $directory/made-b
                done
                """,
                user=ROOT,
            )
        ],
    ),
    Attack(
        name="change-owner",
        tries="give its files to another user, change its root directory",
        at_start=True,
        stages=[
            sh(
                """
                : > /job/mine
                refused "owner changed" chown 4711 /job/mine
                refused "root directory changed" chroot /job/.. true
                rm -f /job/mine
                """,
                user=ROOT,
            )
        ],
    ),
    Attack(
        name="raise-limits",
        tries="raise its own limits",
        at_start=True,
        stages=[
            sh(
                """
                if (ulimit -n 65536) 2>/dev/null; then breach "open files without end"; fi
                if (ulimit -c 1000000) 2>/dev/null; then breach "core files"; fi
                """,
                user=ROOT,
            )
        ],
    ),
    Attack(
        name="become-another-user",
        tries="become another user by system calls",
        stages=[
            python(
                """
                for name, call in {
                    "user": lambda: os.setuid(4712), "group": lambda: os.setgid(4712),
                    "users": lambda: os.setresuid(4712, 4712, 4712), "groups": lambda: os.setgroups([4712]),
                }.items():
                    child = os.fork()
                    if child == 0:
                        try:
                            call()
                        except OSError:
                            os._exit(0)
                        os._exit(1)
                    if os.waitpid(child, 0)[1] != 0:
                        breach(name, "changed")
                """,
                user=ROOT,
            )
        ],
    ),
    Attack(
        name="set-user-id-program",
        tries="become the owner of a set-user-id program that an earlier stage left in /job",
        stages=[
            sh("cp /usr/bin/id /job/id && chmod 6755 /job/id || exit 1", image=PYTHON, user=ROOT),
            sh('got=$(/job/id -u) || exit 1; [ "$got" = 4711 ] || breach "user $got"', image=PYTHON, user=STRANGER),
        ],
    ),
)
