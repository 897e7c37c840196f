"""The engine's own filter of system calls without io_uring, for engines whose own still lets containers use that.

io_uring has been the way into the kernel again and again; Docker took it out of its profile with version 25. For the
version that Debian 12 has, this is what the engine itself sets for a container without capabilities, less those three
calls; a test holds the two against each other. Every other version is left alone, and so is an operator's own profile:
ours could be the weaker one. So is every machine but x86-64.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

#: The engine's version.
COMPARED_WITH = "20.10.24"
#: What needs no look at its arguments; of x86-64, and of the two other kinds of programs that run there.
ALLOWED = """
    _llseek _newselect accept accept4 access adjtimex alarm arch_prctl bind brk capget capset chdir chmod chown chown32
    clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
    clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
    epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
    exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchown
    fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64
    fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_time64 futex_waitv futimesat get_robust_list
    get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups
    getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32
    getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents
    io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule
    landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listxattr llistxattr
    lremovexattr lseek lsetxattr lstat lstat64 madvise membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod
    mknodat mlock mlock2 mlockall mmap mmap2 modify_ldt mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
    mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap msgctl msgget msgrcv msgsnd msync munlock
    munlockall munmap nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 poll ppoll
    ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 ptrace pwrite64
    pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg
    remap_file_pages removexattr rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending
    rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
    sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg
    sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid
    setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid
    setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr shmat shmctl shmdt shmget
    shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socket socketcall socketpair splice stat stat64 statfs
    statfs64 statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete
    timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime
    timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink
    unlinkat utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev
""".split()  # noqa: SIM905 - as a list it would have as many lines as names
#: What a program may ask of personality(2): Linux's own, 32 bits of addresses, a uname of 2.6; and which it has.
PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
#: The flags of clone(2) by which namespaces are made (CLONE_NEW…).
NAMESPACES = 0x7E020000
_ENOSYS = 38


def profile_for(facts: Mapping[str, Any]) -> str | None:
    """The profile to give to an engine with these facts ("Get system information"), as JSON; None: its own is right."""
    own = "name=seccomp,profile=default" in (facts.get("SecurityOptions") or ())
    version = re.match(r"[0-9.]+", str(facts.get("ServerVersion")))
    known = version is not None and version[0] == COMPARED_WITH and facts.get("Architecture") == "x86_64"
    return _PROFILE if own and known else None


def _rules() -> list[dict[str, Any]]:
    allow = {"action": "SCMP_ACT_ALLOW"}
    return [
        {**allow, "names": ALLOWED},
        *(
            {**allow, "names": ["personality"], "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]}
            for value in PERSONALITIES
        ),
        {
            **allow,
            "names": ["clone"],
            "args": [{"index": 0, "value": NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
        },
        # Its flags are in memory, where no filter can look: whoever does not have it takes clone(2).
        {"action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS, "names": ["clone3"]},
    ]


_PROFILE = json.dumps(
    {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": _rules(),
    },
    separators=(",", ":"),
)
