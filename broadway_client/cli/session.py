"""What every command shares: its common options, and the way to the API."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

import click

from broadway_client.async_client import AsyncClient
from broadway_client.cli import settings
from broadway_client.cli.output import Output
from broadway_client.client import Client

P = ParamSpec("P")

#: Seconds that a command goes on trying. A wrong host should be found out at once, a restart not noticed.
PATIENCE = 3.0


class Session:
    """One command's settings and output."""

    def __init__(self, *, api: str | None, token: str | None, ca_certificate: str | None, as_json: bool) -> None:
        self.output = Output(as_json=as_json)
        self._given = {"api": api, "token": token, "ca_certificate": ca_certificate}

    @functools.cached_property
    def settings(self) -> settings.Settings:
        """Which API, and with which token. Raises InvalidSettings."""
        found = settings.load(**self._given)
        for remark in found.remarks:
            self.output.aside(remark, style="yellow")
        return found

    def client(self) -> Client:
        """A client that waits; to be closed."""
        found = self.settings
        return Client(found.api, found.token, ca_certificate=found.ca_certificate, patience=PATIENCE)

    def async_client(self) -> AsyncClient:
        """A client for an event loop; to be closed."""
        found = self.settings
        return AsyncClient(found.api, found.token, ca_certificate=found.ca_certificate, patience=PATIENCE)


def connected(function: Callable[Concatenate[Session, P], None]) -> Callable[..., None]:
    """A command that speaks to an API: it has the options for that, and gets a Session in their place."""

    @click.option("--api", metavar="URL", envvar="BROADWAY_API", help=f"URL of the API.  [{settings.DEFAULT_API}]")
    @click.option(
        "--token", metavar="TOKEN", envvar="BROADWAY_TOKEN", help="Better given by BROADWAY_TOKEN: `ps` shows flags."
    )
    @click.option(
        "--ca-certificate",
        metavar="FILE",
        envvar="BROADWAY_CA_CERTIFICATE",
        help="PEM file of the authority that signed the API's certificate, if no public one did.",
    )
    @spoken
    @functools.wraps(function)
    def run(
        output: Output, /, *args: Any, api: str | None, token: str | None, ca_certificate: str | None, **named: Any
    ) -> None:
        session = Session(api=api, token=token, ca_certificate=ca_certificate, as_json=output.as_json)
        function(session, *args, **named)

    return run


def spoken(function: Callable[Concatenate[Output, P], None]) -> Callable[..., None]:
    """A command that says something: it has `--json` and `--debug`, and gets an Output in their place."""

    @click.option("--json", "as_json", is_flag=True, help="Answer in JSON, as the API has it.")
    @click.option("--debug", is_flag=True, help="Show the traceback of whatever goes wrong.")
    @functools.wraps(function)
    def run(*args: Any, as_json: bool, debug: bool, **named: Any) -> None:  # `main` looks for it
        function(Output(as_json=as_json), *args, **named)

    return run
