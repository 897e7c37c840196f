"""Who is at the other end, where proxies stand between."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from tornado.httputil import HTTPServerRequest

Address = IPv4Address | IPv6Address


class Proxies:
    """The proxies whose word about their clients is taken; nobody else's is."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        """Addresses or networks: `127.0.0.1`, `10.0.0.0/8`. Raises ValueError."""
        self._networks: list[IPv4Network | IPv6Network] = [ip_network(network) for network in networks]

    def client_address(self, request: HTTPServerRequest) -> str:
        """The address of the client: of our peer, or what the proxies in between say.

        `X-Forwarded-For` is read from its end, where the nearest proxy wrote, up to the first address that is no
        proxy's; what stands before that the client may have made up.
        """
        peer = request.remote_ip or "unknown"
        address = _address(peer)
        for claimed in reversed(request.headers.get("X-Forwarded-For", "").split(",")):
            if address is None or not self._trusts(address):
                break
            before = _address(claimed.strip())
            if before is None:
                break
            address = before
        return peer if address is None else str(address)

    def is_secure(self, request: HTTPServerRequest) -> bool:
        """Whether the client speaks HTTPS, to us or to a proxy."""
        if not self._networks:  # what an address is takes longer to find out than all other headers together
            return request.protocol == "https"
        peer = _address(request.remote_ip or "")
        if peer is not None and self._trusts(peer) and (told := request.headers.get("X-Forwarded-Proto")):
            return told.strip().lower() == "https"
        return request.protocol == "https"

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def _address(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
