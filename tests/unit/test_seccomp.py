"""The sandbox's filter of system calls, as the kernel would carry it out."""

from __future__ import annotations

import errno
import struct

import pytest

from broadway_grader.runtimes import seccomp

MACHINES = {"x86_64": (0xC000003E, 16, 39), "aarch64": (0xC00000B7, 29, 172)}  # architecture, ioctl, getpid
REFUSED, MISSING, ALLOWED = 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS, 0x7FFF0000


def verdict(machine: str, number: int, *, architecture: int | None = None, second: int = 0) -> int:
    """What the filter for `machine` returns for one call: a small interpreter of the instructions that it uses."""
    program = seccomp.program(machine)
    assert program is not None
    data = struct.pack("=IIQ6Q", number, architecture or MACHINES[machine][0], 0, 0, second, 0, 0, 0, 0)
    steps = list(struct.iter_unpack("=HBBI", program))
    at = value = 0
    while True:
        code, if_true, if_false, operand = steps[at]
        at += 1
        if code == 0x06:
            return int(operand)
        if code == 0x20:
            (value,) = struct.unpack_from("=I", data, operand)
        else:
            at += if_true if (value == operand if code == 0x15 else value >= operand) else if_false


@pytest.mark.parametrize(("machine", "column"), [("x86_64", 0), ("aarch64", 1)])
def test_what_is_on_the_list_is_refused_and_the_rest_is_not(machine: str, column: int) -> None:
    listed = {numbers[column] for numbers in seccomp.REFUSED.values()}
    assert {number for number in range(600) if verdict(machine, number) == REFUSED} == listed - {None}
    assert verdict(machine, MACHINES[machine][2]) == ALLOWED


@pytest.mark.parametrize("machine", MACHINES)
def test_another_architectures_numbers_lead_nowhere(machine: str) -> None:
    assert verdict(machine, MACHINES[machine][2], architecture=0x40000003) == MISSING  # 32 bits
    assert verdict("x86_64", 0x40000000 | 250) == MISSING  # x32


@pytest.mark.parametrize("machine", MACHINES)
def test_no_terminal_is_made_to_type(machine: str) -> None:
    ioctl = MACHINES[machine][1]
    assert [verdict(machine, ioctl, second=request) for request in (0x5412, 0x541C, 0x5413)] == [
        REFUSED,
        REFUSED,
        ALLOWED,
    ]


def test_an_unknown_machine_has_no_filter() -> None:
    assert seccomp.program("pdp11") is None
