"""The grader's side of the wire: one method per endpoint, every failure an `ApiError`."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from broadway_grader.connection import ANSWER_TIMEOUT, Answer, Connection
from broadway_grader.domain import Job, JobResult
from broadway_grader.errors import (
    ClaimLost,
    Refused,
    TooLarge,
    Unauthorized,
    UnknownWorker,
    UnusableAnswer,
    UnusableJob,
)
from broadway_grader.wire import parse_job
from config import QUEUE_EMPTY_CODE

log = logging.getLogger(__name__)

#: Seconds that the API may take to take output: what comes late is of no use.
OUTPUT_TIMEOUT = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Registration:
    """What the API gives a worker that registers; `heartbeat` is the interval in seconds."""

    worker_id: str
    heartbeat: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claims:
    """What one claim brought: jobs to run, and jobs that can only be reported as unusable."""

    jobs: Sequence[Job] = ()
    unusable: Sequence[UnusableJob] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heard:
    """What a heartbeat is told: which of its jobs are no longer the worker's, and who follows which of them."""

    lost: frozenset[str] = frozenset()
    followed: Mapping[str, frozenset[str]] = dataclasses.field(default_factory=dict)


class ApiClient:
    """Speaks to one API with one cluster token. Use as an async context manager.

    Every method may raise `Unreachable`, `ServerBusy`, `UnusableAnswer` (all retryable) and `Refused`.
    """

    def __init__(
        self, url: str, token: str, *, ca_certificate: Path | None = None, answer_timeout: float = ANSWER_TIMEOUT
    ) -> None:
        """Raises SetupError if `ca_certificate` cannot be used."""
        self._connection = Connection(url, token, ca_certificate=ca_certificate, answer_timeout=answer_timeout)

    async def __aenter__(self) -> Self:
        await self._connection.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.__aexit__(kind, error, trace)

    async def register(
        self, *, hostname: str, slots: int, runtime: str, version: str, labels: Mapping[str, str]
    ) -> Registration:
        """Register as a new worker. Raises Unauthorized if the cluster token is refused."""
        body = {"hostname": hostname, "slots": slots, "runtime": runtime, "version": version, "labels": dict(labels)}
        response = await self._send("POST", "worker_register", body=_encoded(body))
        if response.status == 401:
            raise Unauthorized
        data = _data(response)
        worker_id, heartbeat = data.get("worker_id"), data.get("heartbeat")
        if not isinstance(worker_id, str) or not worker_id.isalnum():
            raise UnusableAnswer("the API registered this worker without a usable worker_id")
        if not isinstance(heartbeat, int | float) or isinstance(heartbeat, bool) or not 0 < heartbeat < 86400:
            raise UnusableAnswer("the API registered this worker without a usable heartbeat interval")
        return Registration(worker_id=worker_id, heartbeat=float(heartbeat))

    async def heartbeat(self, worker_id: str, running: Mapping[str, int]) -> Heard:
        """Renew the leases of `running` (job id → attempt). Raises UnknownWorker."""
        named = [{"job_id": job_id, "attempt": attempt} for job_id, attempt in running.items()]
        response = await self._send("POST", "heartbeat", worker_id=worker_id, body=_encoded({"running": named}))
        data = _data(response, worker_id)
        lost, followed = data.get("lost", []), data.get("followed")
        if not isinstance(lost, list):
            raise UnusableAnswer("a heartbeat was answered without a list of lost jobs")
        return Heard(
            lost=frozenset(job_id for job_id in lost if isinstance(job_id, str)),
            followed={job_id: _names(names) for job_id, names in followed.items()}
            if isinstance(followed, dict)
            else {},
        )

    async def output(self, worker_id: str, job_id: str, attempt: int, body: Mapping[str, Any]) -> frozenset[str]:
        """Post some of what a job prints, see `live_output`; the names under which it is followed.

        Raises UnknownWorker.
        """
        path, content = f"grading_job/{job_id}/output", {"attempt": attempt, **body}
        response = await self._send("POST", path, worker_id=worker_id, body=_encoded(content), within=OUTPUT_TIMEOUT)
        return _names(_data(response, worker_id).get("followed"))

    async def claim(self, worker_id: str, *, slots: int, holding: Collection[str], wait: int) -> Claims:
        """Claim up to `slots` jobs; the API holds the call up to `wait` seconds while the queue is empty.

        `holding` names the jobs that came through: one that the API gave out and does not find here is given again.
        Raises UnknownWorker.
        """
        response = await self._send(
            "GET",
            "grading_job",
            worker_id=worker_id,
            query={"slots": str(slots), "holding": _named(holding)},
            headers={"Prefer": f"wait={wait}"},
            patience=wait,
        )
        if response.status == QUEUE_EMPTY_CODE:
            return Claims()
        data = _data(response, worker_id)
        return _claims(data.get("jobs", [data]), worker_id)

    async def report(self, worker_id: str, result: JobResult) -> str:
        """Deliver a result under the worker id that claimed the job; returns the job's state after it.

        Raises UnknownWorker, ClaimLost, TooLarge.
        """
        return (await self.report_and_claim(worker_id, result, slots=0, holding=()))[0]

    async def report_and_claim(
        self, worker_id: str, result: JobResult, *, slots: int, holding: Collection[str]
    ) -> tuple[str, Claims]:
        """Deliver a result, and claim up to `slots` jobs in the same call, which the API does not hold for any.

        An API of an earlier release takes the result and brings nothing. Raises what `report` does.
        """
        body = _encoded(result.to_wire())
        response = await self._send(
            "POST",
            f"grading_job/{result.job_id}",
            worker_id=worker_id,
            body=body,
            query={"slots": str(slots), "holding": _named(holding)} if slots else None,
        )
        if response.status == 413:  # a proxy's word too: the same body would meet the same limit
            raise TooLarge(len(body))
        try:
            data = _data(response, worker_id)
        except Refused as refusal:
            if refusal.status == 409:
                raise ClaimLost(result.job_id, result.attempt) from refusal
            raise
        if not isinstance(data.get("state"), str):  # the result may be gone for good only on the API's clear word
            raise UnusableAnswer("a result was answered without the job's state")
        try:
            return data["state"], _claims(data.get("jobs", []), worker_id)
        except UnusableAnswer as error:  # the result has been taken all the same, and what it brought will come again
            log.warning("worker %s got no job with the answer to its result: %s", worker_id, error)
            return data["state"], Claims()

    async def deregister(self, worker_id: str, *, crashed: bool = False) -> Sequence[str]:
        """Deregister; returns the jobs that were taken from the worker. Raises UnknownWorker.

        `crashed`: its jobs died with it; they are not handed back untouched, but have cost an attempt.
        """
        query = {"crashed": "true"} if crashed else None
        response = await self._send("DELETE", f"worker/{worker_id}", worker_id=worker_id, query=query)
        handed_back = _data(response, worker_id).get("handed_back", [])
        return [str(job_id) for job_id in handed_back] if isinstance(handed_back, list) else []

    async def _send(
        self,
        method: str,
        path: str,
        *,
        worker_id: str | None = None,
        body: bytes | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        patience: float = 0.0,
        within: float | None = None,
    ) -> Answer:
        sent = dict(headers or {})
        if worker_id is not None:
            # The specification's name, and one that proxies let pass which drop names with an underscore.
            sent |= {"worker_id": worker_id, "Worker-Id": worker_id}
        if body is not None:
            sent["Content-Type"] = "application/json"
        return await self._connection.ask(
            method, path, headers=sent, body=body, query=query, patience=patience, within=within
        )


def _encoded(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _named(holding: Collection[str]) -> str:
    return ",".join(sorted(set(holding)))


def _claims(entries: object, worker_id: str) -> Claims:
    """The jobs of an answer that hands some out."""
    if not isinstance(entries, list):
        raise UnusableAnswer("a claim was answered without a list of jobs")
    jobs: list[Job] = []
    unusable: list[UnusableJob] = []
    for entry in entries:
        try:
            jobs.append(parse_job(entry))
        except UnusableJob as error:
            unusable.append(error)
        except UnusableAnswer as error:
            # One bad entry must not cost the good ones: those would be handed out again, but later.
            log.warning("worker %s was handed something that is no job: %s", worker_id, error)
    if entries and not jobs and not unusable:
        raise UnusableAnswer("a claim brought nothing that is a job")
    return Claims(jobs=jobs, unusable=unusable)


def _names(listed: object) -> frozenset[str]:
    """Names of followers; an API that has none of them names nobody."""
    return frozenset(name for name in listed if isinstance(name, str)) if isinstance(listed, list) else frozenset()


def _data(response: Answer, worker_id: str | None = None) -> dict[str, Any]:
    """The `data` of a success; raises what the status of any other answer means."""
    body = response.json()
    data = body.get("data") if isinstance(body, dict) else None
    if 200 <= response.status < 300:
        if isinstance(data, dict):
            return data
        raise UnusableAnswer(f"an answer of status {response.status} is not in the API's envelope")
    # A refusal is final, and costs a result: only the API's own word, in its envelope, is one. A proxy's is not.
    if 400 <= response.status < 500 and isinstance(data, dict):
        if response.status == 401 and worker_id is not None:
            raise UnknownWorker(worker_id)
        raise Refused(response.status, str(data.get("message") or response.reason))
    raise UnusableAnswer(f"an answer of status {response.status} is none of the API's")
