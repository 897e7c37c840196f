"""Where the API is and how it is spoken to, common to both clients."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from broadway_client.errors import InvalidSettings
from broadway_client.version import __version__

#: Seconds that the API may take to answer.
ANSWER_TIMEOUT = 30.0
#: Seconds that a connection may take to be made.
CONNECT_TIMEOUT = 10.0
#: Seconds of silence after which a stream of events is given up: a comment comes every 15.
EVENTS_TIMEOUT = 45.0


@dataclass(frozen=True, kw_only=True)
class Connection:
    """An API's URL and a token for it. Raises InvalidSettings."""

    url: str
    token: str = field(repr=False)
    ca_certificate: Path | None = None

    def __post_init__(self) -> None:
        try:
            url = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise InvalidSettings(f"{self.url!r} is no URL: {error}") from None
        if url.scheme not in ("http", "https") or not url.host:
            raise InvalidSettings(f"{self.url!r} is no http:// or https:// URL")
        if url.userinfo:
            raise InvalidSettings("the API's URL holds a user name or a password; a token goes into BROADWAY_TOKEN")
        if not self.token or not all("!" <= character <= "~" for character in self.token):
            raise InvalidSettings("a token must be visible ASCII characters, without spaces")

    def settings(self) -> dict[str, Any]:
        """What httpx's clients are made with. Raises InvalidSettings if the CA certificate cannot be used."""
        return {
            "base_url": f"{self.url.rstrip('/')}/",
            "headers": {"Authorization": f"Bearer {self.token}", "User-Agent": f"broadway-client/{__version__}"},
            "timeout": httpx.Timeout(ANSWER_TIMEOUT, connect=CONNECT_TIMEOUT),
            "verify": self._tls(),
            # A proxy for the outside cannot reach this machine's own loopback interface.
            "trust_env": not is_loopback(self.url),
        }

    def _tls(self) -> ssl.SSLContext | bool:
        if not self.url.startswith("https:"):
            return False  # reading all authorities takes 20 ms, for nothing
        context = ssl.create_default_context()
        if self.ca_certificate is not None:
            try:
                context.load_verify_locations(cafile=self.ca_certificate)
            except (OSError, ssl.SSLError) as error:
                raise InvalidSettings(f"cannot use the CA certificate {self.ca_certificate}: {error}") from error
        return context


def is_loopback(url: str) -> bool:
    """Whether the URL names this machine itself."""
    host = httpx.URL(url).host
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
