"""Reaching anything at all while networking is off."""

from __future__ import annotations

from collections.abc import Sequence

from broadway_grader.attacks.attack import ROOT, Attack, python, sh

NETWORK: Sequence[Attack] = (
    Attack(
        name="routes",
        tries="find a way out of its own network",
        at_start=True,
        stages=[
            sh(
                """
                while read -r name rest; do [ "$name" = Iface ] || breach "route by $name"; done < /proc/net/route
                """
            )
        ],
    ),
    Attack(
        name="connections",
        tries="reach the metadata service, the host's loopback, the API, the bridge's gateway, a name server",
        stages=[
            python(
                """
                def attempt(what, kind, address, words=b"hello"):
                    with socket.socket(*kind) as line:
                        line.settimeout(2)
                        try:
                            line.connect(address)
                            line.sendall(words)
                            if kind[1] == socket.SOCK_STREAM or line.recv(512):
                                breach(what, "reached")
                        except OSError:
                            pass
                tcp, udp = (socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_DGRAM)
                for target in os.environ["HOST_ADDRESSES"].split():
                    host, _, port = target.rpartition(":")
                    attempt(target, tcp, (host, int(port)))
                attempt("the metadata service", tcp, ("169.254.169.254", 80))
                query = b"\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\7example\\3org\\0\\0\\1\\0\\1"
                for server in ("127.0.0.11", "169.254.169.253", "8.8.8.8"):
                    attempt(f"name server {server}", udp, (server, 53), query)
                try:
                    socket.getaddrinfo("example.org", 80)
                    breach("a name was looked up")
                except OSError:
                    pass
                """
            )
        ],
    ),
    Attack(
        name="unix-sockets",
        tries="reach an abstract unix socket of the host, which no file system hides",
        stages=[
            python(
                """
                with socket.socket(socket.AF_UNIX) as line:
                    try:
                        line.connect("\\0" + os.environ["HOST_SOCKET"])
                        breach("reached")
                    except OSError:
                        pass
                """,
                user=ROOT,
            )
        ],
    ),
    Attack(
        name="raw-sockets",
        tries="send packets of its own making, as ARP spoofing does",
        stages=[
            python(
                """
                for name, kind in {
                    "ICMP": (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
                    "packet": (socket.AF_PACKET, socket.SOCK_RAW, 0),
                }.items():
                    try:
                        socket.socket(*kind).close()
                        breach("raw", name, "socket made")
                    except OSError:
                        pass
                """,
                user=ROOT,
            )
        ],
    ),
)
