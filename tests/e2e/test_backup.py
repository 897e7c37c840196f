"""Backup and restore as docs/deployment.md has them: taken while a class is graded, put back after a loss."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pymongo
from pymongo.uri_parser import parse_uri

from tests.e2e.classes import run_config, stage
from tests.e2e.fleet import TOKEN, Fleet

STUDENTS = 12


class SqliteBackup:
    """`.backup` of SQLite's shell, by the same function of its library."""

    def __init__(self, data: Path, copy: Path) -> None:
        self._file, self._copy = data / "broadway.db", copy

    def take(self) -> None:
        with closing(sqlite3.connect(self._file)) as source, closing(sqlite3.connect(self._copy)) as target:
            source.backup(target)

    def lose_and_restore(self) -> None:
        for name in ("", "-wal", "-shm"):
            self._file.with_name(f"broadway.db{name}").unlink(missing_ok=True)
        shutil.copy(self._copy, self._file)


class MongoBackup:
    """What `mongodump` does without `--oplog`: one collection after the other, each at its own moment."""

    def __init__(self, url: str, between: Callable[[], None]) -> None:
        self._url, self._database = url, parse_uri(url)["database"]
        self._between = between
        self._taken: dict[str, list[dict[str, Any]]] = {}

    def take(self) -> None:
        with pymongo.MongoClient[dict[str, Any]](self._url) as client:
            database = client[self._database]
            for name in sorted(database.list_collection_names(), reverse=True):
                self._taken[name] = list(database[name].find())
                if name == "runs":
                    self._between()

    def lose_and_restore(self) -> None:
        with pymongo.MongoClient[dict[str, Any]](self._url) as client:
            client.drop_database(self._database)
            for name, documents in self._taken.items():
                if documents:
                    client[self._database][name].insert_many(documents)


def test_a_class_is_graded_to_its_end_after_the_store_was_lost(
    fleets: Callable[[str], Fleet], store_url: str, tmp_path: Path
) -> None:
    fleet = fleets(store_url)
    api = fleet.start_api()
    data = fleet.directory / "data"
    secret = httpx.put(
        f"{fleet.url}/api/v1/secrets/KEY", json={"value": "four words of secret"}, headers={"Authorization": TOKEN}
    )
    secret.raise_for_status()
    fleet.start_grader(runtime="sandbox", slots=2)
    script = stage('sleep 0.2; echo "$NET_ID ${#KEY}"', env={"KEY": {"secret": "KEY"}})

    def graded(students: int) -> str:
        return fleet.grade(run_config(*({"NET_ID": f"s{number}"} for number in range(students)), stages=[script]))

    before = fleet.finish(graded(2))
    run_id = graded(STUDENTS)

    def ended_at_least(count: int) -> None:
        fleet.wait_for(lambda: fleet.client.run(run_id)["counts"]["succeeded"] >= count, f"{count} jobs to end")

    ended_at_least(2)
    backup: SqliteBackup | MongoBackup = (
        MongoBackup(store_url, between=lambda: ended_at_least(4))
        if store_url
        else SqliteBackup(data, tmp_path / "copy")
    )
    backup.take()
    key = (data / "secret_key").read_bytes()
    ended_at_least(6)
    api.kill()
    (data / "secret_key").unlink()
    backup.lose_and_restore()
    (data / "secret_key").write_bytes(key)
    fleet.start_api()

    end = fleet.finish(run_id)
    assert (end["state"], end["counts"]["succeeded"]) == ("finished", STUDENTS)
    assert [fleet.stdout(job) for job in fleet.jobs(run_id)] == [{0: f"s{number} 20\n"} for number in range(STUDENTS)]
    assert fleet.client.run(before["grading_run_id"]) == before
    fleet.stop()
    assert fleet.leftovers() == []
