"""The services that other tests stand on: what they promise, and that a missing one is no skip."""

from __future__ import annotations

from pathlib import Path

import pymongo
import pytest

from tests import services


def test_the_standalone_mongod_is_no_replica_set(mongo_standalone_url: str) -> None:
    with pymongo.MongoClient[dict[str, object]](mongo_standalone_url) as client:
        hello = client.admin.command("hello")
    assert hello["isWritablePrimary"]
    assert "setName" not in hello


def test_the_replica_set_takes_a_majority_write_and_knows_its_three_members(mongo_replica_set_url: str) -> None:
    with pymongo.MongoClient[dict[str, object]](mongo_replica_set_url, w="majority", journal=True) as client:
        client.get_database("test_services").get_collection("writes").insert_one({"written": True})
        assert len(client.admin.command("hello")["hosts"]) == 3
        client.drop_database("test_services")


def test_a_database_can_be_named_in_either_url() -> None:
    assert services.with_database("mongodb://h:1/", "db") == "mongodb://h:1/db"
    assert services.with_database("mongodb://h:1,h:2/?replicaSet=r", "db") == "mongodb://h:1,h:2/db?replicaSet=r"


def test_a_missing_mongod_fails_and_names_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(services, "ROOT", tmp_path)
    with pytest.raises(services.ServiceMissing, match="make services"):
        services.mongod_binary()
