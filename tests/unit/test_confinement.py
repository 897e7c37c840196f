"""What a stage's container is allowed: the request to the engine, without an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broadway_grader.domain import Stage
from broadway_grader.runtimes.confinement import container_request, memory_limit
from broadway_grader.runtimes.port import Limits, Place, Settings, UnusableStage
from broadway_grader.runtimes.users import DEFAULT_USERS, parse_users, user_of_slot

MIB = 1024**2
SETTINGS: dict[str, Any] = {
    "limits": Limits(memory=64 * MIB, cpus=1.5, pids=9, log_bytes=1000, tmp=8 * MIB, disk=32 * MIB, open_files=100),
    "slots": 2,
    "instance": "us",
    "work_dir": Path("/srv/grader"),
}
PLACE = Place(job_id="j", attempt=3, stage=1, slot=1, directory=Path("/srv/grader/jobs/j-1"))
USER = "2000000001:2000000001"


def request(stage: Stage, default_user: str | None = USER, **settings: Any) -> dict[str, Any]:
    return container_request(stage, PLACE, Settings(**SETTINGS | settings), default_user=default_user)


def test_a_stage_that_asks_for_nothing_gets_just_this() -> None:
    assert request(Stage(image="i")) == {
        "Image": "i",
        "Env": ["HOME=/tmp"],
        "Hostname": "",
        "User": USER,
        "WorkingDir": "",
        "NetworkDisabled": True,
        "Labels": {
            "broadway.instance": "us",
            "broadway.job-id": "j",
            "broadway.attempt": "3",
            "broadway.stage": "1",
        },
        "HostConfig": {
            "Memory": 64 * MIB,
            "MemorySwap": 64 * MIB,
            "NanoCpus": 1_500_000_000,
            "PidsLimit": 9,
            "ShmSize": 8 * MIB,
            "Ulimits": [
                {"Name": "nofile", "Soft": 100, "Hard": 100},
                {"Name": "core", "Soft": 0, "Hard": 0},
                {"Name": "fsize", "Soft": 32 * MIB, "Hard": 32 * MIB},
            ],
            "Mounts": [
                {"Type": "bind", "Source": "/srv/grader/jobs/j-1", "Target": "/job"},
                {"Type": "bind", "Source": "/srv/grader/hosts", "Target": "/etc/hosts", "ReadOnly": True},
            ],
            "Tmpfs": {"/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={8 * MIB}"},
            "ReadonlyRootfs": False,
            "NetworkMode": "none",
            "IpcMode": "private",
            "CgroupnsMode": "private",
            "Init": True,
            "LogConfig": {"Type": "none"},
            "Privileged": False,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
        },
    }


def test_what_a_stage_asks_for_wins() -> None:
    stage = Stage(
        image="i",
        env={"HOME": "/job", "A": "1"},
        entry_point=["run", "-v"],
        enable_networking=True,
        host_name="h",
        memory=96 * MIB,
        cpus=0.5,
        pids=7,
        user="1000",
        working_dir="/w",
        read_only=True,
    )
    made = request(stage)
    assert (made["Env"], made["Entrypoint"], made["Cmd"]) == (["HOME=/job", "A=1"], ["run"], ["-v"])
    assert (made["Hostname"], made["User"], made["WorkingDir"]) == ("h", "1000", "/w")
    host = made["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["PidsLimit"]) == (
        *(96 * MIB, 96 * MIB),
        *(500_000_000, 7),
    )
    assert made["NetworkDisabled"] is False
    assert [mount["Target"] for mount in host["Mounts"]] == ["/job"], "the engine writes its /etc/hosts itself"
    assert (host["NetworkMode"], host["ReadonlyRootfs"], host["CapDrop"]) == ("bridge", True, ["ALL"])
    assert memory_limit(stage, Settings(**SETTINGS)) == 96 * MIB


def test_home_is_said_only_for_a_user_that_no_image_knows() -> None:
    assert request(Stage(image="i", user="1000"))["Env"] == []
    assert request(Stage(image="i"), default_user=None)["Env"] == []


def test_the_cluster_decides_about_read_only_where_the_stage_does_not() -> None:
    def read_only(stage: bool | None, cluster: bool) -> object:
        return request(Stage(image="i", read_only=stage), read_only=cluster)["HostConfig"]["ReadonlyRootfs"]

    assert [read_only(None, False), read_only(None, True)] == [False, True]
    assert [read_only(True, False), read_only(False, True)] == [True, False]


def test_an_oci_runtime_is_asked_for_by_name() -> None:
    assert request(Stage(image="i"), oci_runtime="runsc")["HostConfig"]["Runtime"] == "runsc"


def test_a_profile_of_system_calls_is_passed_on() -> None:
    made = container_request(Stage(image="i"), PLACE, Settings(**SETTINGS), default_user=USER, seccomp="{}")
    assert made["HostConfig"]["SecurityOpt"] == ["no-new-privileges", "seccomp={}"]


def test_a_privileged_stage_is_what_its_image_says_and_keeps_its_limits() -> None:
    made = request(Stage(image="i", privileged=True))
    assert (made["User"], made["HostConfig"]["Privileged"]) == ("", True)
    assert not {"CapDrop", "SecurityOpt"} & made["HostConfig"].keys()
    assert made["HostConfig"]["Memory"] == 64 * MIB


@pytest.mark.parametrize("user", ["0", "00", "0:0", "0:5", "root", "root:users", "toor", "student"])
def test_where_root_is_forbidden_only_the_number_of_another_user_will_do(user: str) -> None:
    """A name may be anybody in the passwd of an image, root included."""
    with pytest.raises(UnusableStage, match=f"runs no stage as root, which user {user} may be"):
        request(Stage(image="i", user=user), allow_root_stages=False)
    assert request(Stage(image="i", user=user))["User"] == user


def test_where_root_is_forbidden_others_are_not() -> None:
    assert request(Stage(image="i"), allow_root_stages=False)["User"] == USER
    assert request(Stage(image="i", user="1000:0"), allow_root_stages=False)["User"] == "1000:0"
    with pytest.raises(UnusableStage, match="the image's user"):
        request(Stage(image="i"), default_user=None, allow_root_stages=False)
    with pytest.raises(UnusableStage, match="privileged"):
        request(Stage(image="i", user="1000", privileged=True), allow_root_stages=False)


def test_each_slot_has_its_user() -> None:
    users = parse_users("30000-30003", slots=4)
    assert [user_of_slot(users, slot) for slot in (0, 3)] == ["30000:30000", "30003:30003"]
    assert user_of_slot(parse_users("image", slots=4), 0) is None
    assert parse_users("5", slots=1) == range(5, 6)
    assert len(DEFAULT_USERS) == 1024, "as many as there may be slots"


@pytest.mark.parametrize("euid", [0, 1234])
def test_by_default_a_root_grader_has_users_of_its_own_and_another_one_itself(
    monkeypatch: pytest.MonkeyPatch, euid: int
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: euid)
    monkeypatch.setattr("os.getegid", lambda: 55)
    assert user_of_slot("auto", 2) == ("1234:55" if euid else "2000000002:2000000002")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "neither auto, image nor a range"),
        ("root", "neither auto, image nor a range"),
        ("1-2-3", "neither auto, image nor a range"),
        ("-5", "neither auto, image nor a range"),
        ("0-9", "no range of user ids between 1 and"),
        ("9-5", "no range of user ids between 1 and"),
        ("4294967290-4294967295", "no range of user ids between 1 and"),
        ("30000-30002", "has 3 user ids for 4 slots"),
        ("30000", "has 1 user ids for 4 slots"),
    ],
)
def test_users_that_cannot_be_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_users(text, slots=4)


def test_next_to_no_cpu_is_not_no_limit() -> None:
    assert request(Stage(image="i", cpus=5e-324))["HostConfig"]["NanoCpus"] == 10_000_000
