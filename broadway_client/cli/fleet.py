"""`broadway worker`: the fleet."""

from __future__ import annotations

import re

import click

from broadway_client.cli.names import local_time
from broadway_client.cli.session import Session, connected
from broadway_client.client import Client
from broadway_client.models import WorkerNamed

_ID = re.compile(r"[0-9a-f]{24}")


@click.group()
def worker() -> None:
    """See the graders, and keep them from getting new jobs. Operators only."""


@worker.command(name="list")
@connected
def list_(session: Session) -> None:
    """List the workers: state, slots, what each runs."""
    with session.client() as client:
        found = client.workers()
    if session.output.as_json:
        session.output.json([one.raw for one in found])
        return
    rows = [
        (
            one.worker_id,
            one.hostname,
            one.state.value,
            f"{len(one.running)}/{one.slots}",
            one.jobs_processed,
            one.runtime,
            one.version,
            " ".join(f"{name}={value}" if value else name for name, value in sorted(one.labels.items())),
            local_time(one.last_seen),
        )
        for one in found
    ]
    names = ("worker", "host", "state", "busy", "jobs", "runtime", "version", "labels", "last seen")
    session.output.table(names, rows, right=("busy", "jobs"), dispensable=("version", "labels", "last seen", "jobs"))


@worker.command()
@click.argument("worker_", metavar="WORKER")
@connected
def drain(session: Session, worker_: str) -> None:
    """Give a worker no new jobs; it finishes those that it has. WORKER is its id, or a host that has only one."""
    with session.client() as client:
        _say(session, client.drain_worker(_id(client, worker_)), "gets no new jobs")


@worker.command()
@click.argument("worker_", metavar="WORKER")
@connected
def resume(session: Session, worker_: str) -> None:
    """Give a worker jobs again, also one in quarantine. WORKER is its id, or a host that has only one."""
    with session.client() as client:
        _say(session, client.resume_worker(_id(client, worker_)), "gets jobs again")


def _id(client: Client, text: str) -> str:
    found = [one.worker_id for one in client.workers() if one.hostname == text]
    if len(found) > 1:
        raise click.UsageError(f"{text} has {len(found)} workers; give one's id: {', '.join(found)}")
    if not found and not _ID.fullmatch(text):
        raise click.UsageError(f"there is no worker {text!r}; see `broadway worker list`")
    return found[0] if found else text


def _say(session: Session, named: WorkerNamed, what: str) -> None:
    if session.output.as_json:
        session.output.json(named.raw)
    else:
        session.output.line(f"worker {named.worker_id} {what}")
