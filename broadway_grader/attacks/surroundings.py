"""Reaching the host through what a container shows of it: /proc, /sys, /dev, the environment, open files."""

from __future__ import annotations

from collections.abc import Sequence

from broadway_grader.attacks.attack import ROOT, Attack, sh

SURROUNDINGS: Sequence[Attack] = (
    Attack(
        name="host-files",
        tries="read and write files of the host, by path and through /proc",
        at_start=True,
        stages=[
            sh(
                """
                for start in "" /job/.. /job/../../../../.. /proc/1/root /proc/1/cwd /proc/self/root /proc/self/cwd \\
                    /proc/1/root/proc/1/root "/proc/$GRADER_PID/root" "/proc/$PPID/root"
                do
                    cat "$start$HOST_FILE" 2>/dev/null && breach "$start$HOST_FILE read"
                    (echo overwritten > "$start$HOST_FILE") 2>/dev/null && breach "$start$HOST_FILE written"
                    (echo new > "$start$HOST_DIRECTORY/new") 2>/dev/null && breach "$start$HOST_DIRECTORY/new made"
                done
                if [ -e "$WORK_DIRECTORY/instance" ]; then breach "the grader's directory is to be seen"; fi
                """,
                user=ROOT,
            )
        ],
    ),
    Attack(
        name="kernel-settings",
        tries="change settings of the kernel: core_pattern, modprobe, sysrq, uevent_helper, binfmt_misc",
        at_start=True,
        stages=[
            sh(
                """
                cannot_write /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe \\
                    /proc/sys/kernel/sysrq /proc/sys/kernel/panic /proc/sys/vm/drop_caches \\
                    /proc/sys/vm/overcommit_memory /proc/sys/fs/binfmt_misc/register /proc/sys/fs/suid_dumpable \\
                    /sys/kernel/uevent_helper /sys/kernel/debug/tracing/trace /sys/power/state \\
                    /sys/fs/selinux/enforce /proc/acpi/wakeup /proc/irq/default_smp_affinity /proc/mtrr
                """,
                user=ROOT,
            )
        ],
    ),
    Attack(
        name="control-groups",
        tries="change its control groups: have a release agent run on the host, lift its own limits",
        at_start=True,
        stages=[
            sh(
                """
                for group in /sys/fs/cgroup /sys/fs/cgroup/*; do
                    cannot_write "$group/release_agent" "$group/notify_on_release" "$group/cgroup.procs" \\
                        "$group/memory.limit_in_bytes" "$group/memory.max" "$group/pids.max" "$group/devices.allow"
                    if mkdir "$group/broadway-attack" 2>/dev/null; then
                        breach "control group made in $group"; rmdir "$group/broadway-attack"
                    fi
                done
                """,
                user=ROOT,
            )
        ],
    ),
    Attack(
        name="devices",
        tries="open the machine's memory, disks and other devices",
        at_start=True,
        stages=[
            sh(
                """
                for device in /dev/mem /dev/kmem /dev/port /dev/kmsg /dev/kvm /dev/fuse /dev/net/tun \\
                    /dev/loop-control /dev/loop0 /dev/sd? /dev/vd? /dev/nvme?n? /dev/dm-? \\
                    /dev/mapper/control /dev/input/* /dev/snd/*
                do
                    if [ -e "$device" ]; then breach "$device is there"; fi
                done
                for file in /proc/kcore /proc/kmsg; do
                    if [ -n "$(timeout 2 head -c 1 $file 2>/dev/null | tr '\\0' 0)" ]; then breach "$file read"; fi
                done
                """,
                user=ROOT,
            )
        ],
    ),
    Attack(
        name="program-of-the-engine",
        tries="overwrite the program that runs as its first process",
        at_start=True,
        stages=[sh("cannot_write /proc/1/exe /proc/self/exe /sbin/docker-init /usr/bin/bwrap", user=ROOT)],
        runtimes=frozenset({"docker"}),  # the sandbox's are files of the host: read-only-usr
    ),
    Attack(
        name="read-only-usr",
        tries="change the host's programs and libraries, which the sandbox shows",
        at_start=True,
        runtimes=frozenset({"sandbox"}),
        stages=[
            sh(
                """
                cannot_write /usr/bin/* /usr/lib/* /bin/sh /lib/ld-* /etc/passwd /etc/group /etc/hosts
                for directory in / /usr /usr/bin /usr/local /usr/lib /etc /dev /proc; do
                    if ( : > "$directory/broadway-attack" ) 2>/dev/null; then
                        breach "file made in $directory"; rm -f "$directory/broadway-attack"
                    fi
                done
                """,
                user=ROOT,
            )
        ],
    ),
    Attack(
        name="engine-socket",
        tries="find the engine's socket",
        at_start=True,
        stages=[
            sh(
                """
                for socket in /var/run/docker.sock /run/docker.sock /run/containerd/containerd.sock \\
                    /run/podman/podman.sock /run/dbus/system_bus_socket /run/systemd/private
                do
                    if [ -e $socket ]; then breach "$socket is there"; fi
                done
                """,
                user=ROOT,
            )
        ],
    ),
    Attack(
        name="environment",
        tries="find tokens and other variables of the host in its environment",
        at_start=True,
        stages=[
            sh(
                """
                env; cat /proc/[0-9]*/environ 2>/dev/null; echo
                """
            )
        ],
    ),
    Attack(
        name="open-files",
        tries="use files and sockets that the grader or the engine left open",
        at_start=True,
        stages=[
            sh(
                """
                for file in /proc/self/fd/*; do case ${file##*/} in 0|1|2|\\*) ;; *)
                    at=$(readlink "$file") && case $at in /proc/*) ;; *) breach "${file##*/} is $at" ;; esac ;;
                esac; done
                """
            )
        ],
    ),
)
