"""The sandbox's filter of system calls: those that no graded program has a use for, and that kernels were attacked by.

A list of what is refused, not of what is allowed: the sandbox runs whatever is installed on its machine. Containers get
the engine's own, stricter filter. Written as the kernel takes it (linux/filter.h, linux/seccomp.h), so that no library
is needed to compile it.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import struct
from collections.abc import Mapping, Sequence

#: System calls that fail with EPERM: their numbers on x86_64 and on aarch64; None where there is no such call.
REFUSED: Mapping[str, tuple[int | None, int | None]] = {
    # Keyrings know no namespaces.
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # Large, young or privileged parts of the kernel, of which most escapes were made.
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # Namespaces and mounts.
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    # The machine as a whole.
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "iopl": (172, None),
    "ioperm": (173, None),
    "vhangup": (153, 58),
}

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER, _ARCHITECTURE, _SECOND_ARGUMENT = 0, 4, 24  # offsets in struct seccomp_data; the lower half of the argument
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_X32 = 0x40000000  # numbers from here on are the same calls once more
#: Requests of ioctl(2) by which a terminal is made to type: TIOCSTI, TIOCLINUX.
_TYPING = (0x5412, 0x541C)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Machine:
    """What the filter must know of a kind of processor."""

    architecture: int  # AUDIT_ARCH_…, linux/audit.h
    column: int  # in REFUSED
    ioctl: int


_MACHINES = {
    "x86_64": _Machine(architecture=0xC000003E, column=0, ioctl=16),
    "aarch64": _Machine(architecture=0xC00000B7, column=1, ioctl=29),
}


def program(machine: str | None = None) -> bytes | None:
    """The filter for this machine (or another kind, by its name), as `bwrap --seccomp` reads it; None: not known."""
    known = _MACHINES.get(machine or os.uname().machine)
    return None if known is None else b"".join(struct.pack("=HBBI", *each) for each in _instructions(known))


def _instructions(machine: _Machine) -> Sequence[tuple[int, int, int, int]]:
    """(code, steps to skip if true, if false, operand) each."""
    numbers = [row[machine.column] for row in REFUSED.values()]
    refused = [number for number in numbers if number is not None]
    missing, forbidden = _ERRNO | errno.ENOSYS, _ERRNO | errno.EPERM
    return [
        # Another architecture's calls have other numbers, by which they would get past.
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, machine.architecture),
        (_RETURN, 0, 0, missing),
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, missing),
        # Each jumps over those after it, those that judge ioctl, and the one that allows.
        *((_JUMP_EQUAL, len(refused) - 1 - at + 5, 0, number) for at, number in enumerate(refused)),
        (_JUMP_EQUAL, 0, 3, machine.ioctl),
        (_LOAD, 0, 0, _SECOND_ARGUMENT),
        *((_JUMP_EQUAL, 2 - at, 0, request) for at, request in enumerate(_TYPING)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, forbidden),
    ]
