"""System calls that hostile code has no use for but to attack the kernel or what all containers share."""

from __future__ import annotations

from collections.abc import Sequence

from broadway_grader.attacks.attack import ROOT, Attack, Level, python

# Called with arguments that fail for another reason, or change nothing, where the call itself is allowed.
_CALLS = """
numbers = {
    "x86_64": dict(keyctl=250, add_key=248, bpf=321, init_module=175, finit_module=313, kexec_load=246, swapon=167,
        perf_event_open=298, userfaultfd=323, io_uring_setup=425, open_by_handle_at=304, syslog=103, ptrace=101,
        process_vm_readv=310, setns=308, clock_settime=227, clock_gettime=228, pivot_root=155, iopl=172),
    "aarch64": dict(keyctl=219, add_key=217, bpf=280, init_module=105, finit_module=273, kexec_load=104, swapon=224,
        perf_event_open=241, userfaultfd=282, io_uring_setup=425, open_by_handle_at=265, syslog=116, ptrace=117,
        process_vm_readv=270, setns=268, clock_settime=112, clock_gettime=113, pivot_root=41),
}.get(os.uname().machine)
if numbers is None:
    sys.exit("system calls of this machine are not known")
REFUSED = {errno.EPERM, errno.EACCES, errno.ENOSYS}
zeros = ctypes.create_string_buffer(512)
def call(name, *arguments):
    if name not in numbers:
        return -1, errno.ENOSYS
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(numbers[name]), *(
        ctypes.c_long(each) if isinstance(each, int) else each for each in arguments))
    return result, ctypes.get_errno()
def refused(name, *arguments):
    result, error = call(name, *arguments)
    if result >= 0 or error not in REFUSED:
        breach(name, "allowed" if result >= 0 else f"allowed, {os.strerror(error)}")
"""

KERNEL: Sequence[Attack] = (
    Attack(
        name="kernel-code",
        tries="load kernel modules, another kernel, swap space",
        stages=[
            python(
                """
                refused("init_module", zeros, 0, zeros)
                refused("finit_module", -1, zeros, 0)
                refused("kexec_load", 0, 0, zeros, -1)
                refused("swapon", b"/nowhere", 0)
                refused("pivot_root", b"/nowhere", b"/nowhere")
                handle = ctypes.create_string_buffer(b"\\x08\\0\\0\\0\\x01\\0\\0\\0" + bytes(8))
                refused("open_by_handle_at", os.open("/job", os.O_RDONLY), handle, 0)
                refused("iopl", 3)
                """,
                _CALLS,
                user=ROOT,
            )
        ],
    ),
    Attack(
        name="kernel-clock",
        tries="set the machine's clock",
        stages=[
            python(
                """
                now = ctypes.create_string_buffer(16)
                call("clock_gettime", 0, now)
                refused("clock_settime", 0, now)
                """,
                _CALLS,
                user=ROOT,
            ),
        ],
    ),
    Attack(
        name="kernel-keys",
        tries="use the kernel's keyrings, which know no containers",
        stages=[
            python(
                """
                refused("keyctl", 0, -3, 0)
                refused("add_key", b"user", b"broadway", b"x", 1, -2)
                """,
                _CALLS,
            )
        ],
    ),
    Attack(
        name="kernel-programs",
        tries="load BPF programs",
        stages=[python('refused("bpf", 0, zeros, 72)\nrefused("bpf", 5, zeros, 72)', _CALLS, user=ROOT)],
    ),
    Attack(
        name="kernel-surface",
        tries="reach parts of the kernel that are known for their faults: io_uring, userfaultfd, perf",
        level=Level.SHOULD,
        stages=[
            python(
                """
                refused("io_uring_setup", 0, zeros)
                refused("userfaultfd", 0)
                refused("perf_event_open", zeros, 0, -1, -1, 0)
                """,
                _CALLS,
            )
        ],
    ),
    Attack(
        name="kernel-log",
        tries="read the kernel's log",
        stages=[python('refused("syslog", 3, zeros, 512)', _CALLS, user=ROOT)],
    ),
    Attack(
        name="grader-process",
        tries="trace the grader's process, read its memory, enter its namespaces, signal it",
        stages=[
            python(
                """
                pid = int(os.environ["GRADER_PID"])
                if pid > 100 and os.path.exists(f"/proc/{pid}"):
                    breach("process", pid, "is to be seen")
                if call("ptrace", 16, pid, 0, 0)[0] == 0:
                    breach("traced")
                    call("ptrace", 17, pid, 0, 0)
                here = (ctypes.c_size_t * 2)(ctypes.addressof(zeros), 8)
                there = (ctypes.c_size_t * 2)(4096, 8)
                result, error = call("process_vm_readv", pid, here, 1, there, 1, 0)
                if pid > 100 and (result >= 0 or error == errno.EFAULT):
                    breach("memory read")
                try:
                    os.kill(pid, 0)
                    if pid > 100:
                        breach("signalled")
                except OSError:
                    pass
                for name in os.listdir("/proc/1/ns"):
                    try:
                        descriptor = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
                        breach("namespace", name, "opened")
                    except OSError:
                        pass
                """,
                _CALLS,
                user=ROOT,
            )
        ],
    ),
)
