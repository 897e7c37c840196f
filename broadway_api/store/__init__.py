"""Where runs, jobs, workers and logs are kept; `port.py` says what a store is."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from broadway_api.errors import StoreUrlInvalid
from broadway_api.store.port import Store


def open_store(url: str) -> Store:
    """The store that a URL names, to be entered with `async with`.

    `sqlite:///relative/file`, `sqlite:////absolute/file`, `mongodb://…` or `mongodb+srv://…`. Raises StoreUrlInvalid.
    """
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        path = urlsplit(url).path.removeprefix("/")
        if not url.startswith("sqlite:///") or not path:
            raise StoreUrlInvalid(url, "write sqlite:///relative/file or sqlite:////absolute/file")
        from broadway_api.store.sqlite import SqliteStore

        return SqliteStore(Path(path))
    if scheme in ("mongodb", "mongodb+srv"):
        from broadway_api.store.mongo import MongoStore  # only here: the embedded store needs no driver

        return MongoStore(url)
    raise StoreUrlInvalid(url, "it must begin with sqlite:///, mongodb:// or mongodb+srv://")
