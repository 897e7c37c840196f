"""Which API, and with which token: by flag, environment, config file, or the cluster that was started here."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from broadway_client.connection import is_loopback
from broadway_client.errors import InvalidSettings

DEFAULT_API = "http://127.0.0.1:1470"

#: Where an API that was started in this directory keeps the token that it made.
LOCAL_TOKEN = Path("data") / "cluster_token"

_NAMES = ("api", "token", "ca_certificate")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to reach an API. `remarks` are for the person who has set this up."""

    api: str
    token: str = field(repr=False)
    ca_certificate: Path | None
    token_from: str
    remarks: tuple[str, ...] = ()


def config_file() -> Path:
    """The person's config file, whether it is there or not."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "broadway" / "config.toml"


def load(*, api: str | None, token: str | None, ca_certificate: str | None) -> Settings:
    """The settings; arguments are what flags and the environment say. Raises InvalidSettings."""
    path = config_file()
    kept, remarks = _read(path)
    url = api or kept.get("api") or DEFAULT_API
    certificate = ca_certificate or kept.get("ca_certificate")
    source, found = "--token or BROADWAY_TOKEN", token or ""
    # A token that was kept for one API must not be sent to another that a flag names.
    if not found and kept.get("token") and (api is None or api == kept.get("api")):
        source, found = str(path), kept["token"]
    if not found and _is_loopback(url):
        source, found = str(LOCAL_TOKEN), _local_token()
    if not found:
        if not url.startswith(("http://", "https://")):
            raise InvalidSettings(f"{url!r} is no http:// or https:// URL")
        here = f", or give this command where `broadway dev` was started (there is no {LOCAL_TOKEN} here)"
        raise InvalidSettings(
            f"no token for {url}: set BROADWAY_TOKEN, or write api = … and token = … into {path}"
            + (here if _is_loopback(url) else "")
            + (f" (its token is for {kept.get('api')})" if kept.get("token") else "")
        )
    return Settings(
        api=url,
        token=found,
        ca_certificate=Path(certificate).expanduser() if certificate else None,
        token_from=source,
        remarks=remarks,
    )


def _is_loopback(url: str) -> bool:
    try:
        return is_loopback(url)
    except ValueError:  # whoever uses the URL says what is wrong with it
        return False


def _read(path: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            values = tomllib.load(stream)
    except FileNotFoundError:
        return {}, ()
    except OSError as error:
        raise InvalidSettings(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"{path}: {error}") from error
    for name, value in values.items():
        if name not in _NAMES:
            raise InvalidSettings(f"{path}: there is no setting {name!r}; there are {', '.join(_NAMES)}")
        if not isinstance(value, str):
            raise InvalidSettings(f"{path}: {name} must be text in quotes")
    is_open = "token" in values and mode & 0o077
    return values, (f"others can read the token in {path}: chmod 600 it",) if is_open else ()


def _local_token() -> str:
    try:
        lines = LOCAL_TOKEN.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in lines if line.strip() and not line.startswith("#")), "")
