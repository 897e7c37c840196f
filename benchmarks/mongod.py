"""What a mongod tells of itself."""

from __future__ import annotations

from typing import Any

from pymongo import MongoClient


def server_status(url: str) -> dict[str, Any]:
    """Its counters: `pid`, `network`, `opcounters` and many more."""
    with MongoClient[dict[str, Any]](url) as client:
        return client.admin.command("serverStatus")
