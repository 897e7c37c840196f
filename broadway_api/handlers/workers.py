"""What graders call: register, show that they live, take jobs and report them. And the one path they share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from broadway_api import wire, worker_wire
from broadway_api.domain import Claim, JobState
from broadway_api.errors import Fault, InvalidInput, JobNotFound, Rejected
from broadway_api.handlers.base import READERS, WORKERS, ApiHandler, WorkerHandler, refuse
from broadway_api.handlers.course_protocol.base import give_job
from broadway_api.handouts import Handout
from broadway_api.schemas import HEARTBEAT, REGISTRATION, RESULT, RESULTS
from broadway_api.validation import Validator

#: Seconds that a poll is held at most, whatever it prefers: proxies give up on what is silent for longer.
MAX_WAIT = 60

_registration = Validator(REGISTRATION)
_heartbeat = Validator(HEARTBEAT)
_result = Validator(RESULT)
_results = Validator(RESULTS)
_object = Validator({"type": "object"})
_wait_preference = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d+)\"?\s*(?=$|[,;])", re.IGNORECASE)


class RegisterHandler(ApiHandler):
    """The door to the cluster."""

    allowed: ClassVar = dict.fromkeys(("GET", "POST"), WORKERS)
    largest_body = 262_144

    async def get(self) -> None:
        await self._register({})

    async def post(self) -> None:
        await self._register(await self.json_body(_registration) or {})

    async def _register(self, data: Mapping[str, Any]) -> None:
        worker = await self.service.fleet.register(
            hostname=data.get("hostname") or self.gate.proxies.client_address(self.request),
            slots=int(data.get("slots", 1)),  # a schema also takes 2.0
            runtime=data.get("runtime", ""),
            version=data.get("version", ""),
            labels=data.get("labels", {}),
            by=self.principal,
        )
        self.succeed({"worker_id": worker.id, "heartbeat": self.service.policy.heartbeat_interval})


class HeartbeatHandler(WorkerHandler):
    """A worker lives, and so do the jobs that it names."""

    largest_body = 262_144

    async def post(self) -> None:
        running = worker_wire.running_from_json(await self.json_body(_heartbeat), self.worker_id)
        lost = await self.service.fleet.heartbeat(self.worker_id, running, by=self.principal)
        followed = self.service.live_output.followed(claim.job_id for claim in running or ())
        self.succeed({"lost": lost} | ({"followed": followed} if followed else {}))


class ClaimingHandler(WorkerHandler):
    """What calls have in common that hand out jobs: how many, and which ones the worker holds."""

    def slots(self) -> int | None:
        """How many jobs the worker asks for; None if it does not say."""
        return self.integer_argument("slots", None, least=1, most=1_024)

    def holding(self) -> list[str]:
        """The jobs that the worker knows it holds."""
        held = [job_id for job_id in self.get_query_argument("holding", "").split(",") if job_id]
        if len(held) > 1_024:
            refuse("holding", "more than 1,024 jobs")
        return [self.checked_id(job_id, "holding") for job_id in held]

    def handed_out(self, handouts: Sequence[Handout]) -> list[wire.Json]:
        """Jobs as their worker gets them."""
        return [
            worker_wire.handout_to_json(
                handout.job,
                handout.plan.stages,
                handout.envs,
                self.service.policy.lease,
                secrets=handout.secrets,
                roster=handout.roster,
                ended=handout.ended,
            )
            for handout in handouts
        ]


class ClaimHandler(ClaimingHandler):
    """The queue's end: jobs go out there, and results come in."""

    async def get(self) -> None:
        slots = self.slots()
        wait = self._preferred_wait()
        claiming = self.service.fleet.claim(self.worker_id, slots or 1, self.holding(), wait, by=self.principal)
        jobs = self.handed_out(await (self.while_connected(claiming) if wait else claiming))
        if not jobs:
            self.fail(self.queue_empty_code, "the queue is empty")
        elif slots is None:
            self.succeed(jobs[0])
        else:
            self.succeed({"jobs": jobs})

    async def post(self) -> None:
        slots, holding = self.slots(), self.holding()
        reported = await self.json_body(_results, mend_text=True)
        if reported is None:
            raise InvalidInput([Fault(path="$", message="the body is empty; send the jobs' results")])
        results = await self.aside(worker_wire.results_from_json, reported, self.worker_id)
        outcomes, handouts = await self.service.fleet.exchange(
            self.worker_id, results, slots or 0, holding, by=self.principal
        )
        answer = {
            "results": [
                self._outcome(claim.job_id, outcome) for (claim, _), outcome in zip(results, outcomes, strict=True)
            ]
        }
        self.succeed(answer if slots is None else answer | {"jobs": self.handed_out(handouts)})

    def _outcome(self, job_id: str, outcome: JobState | Rejected) -> wire.Json:
        """What became of one result of several; a refusal has the status that it would be answered with by itself."""
        if isinstance(outcome, Rejected):
            return {"job_id": job_id, "status": self.status_of(outcome), "message": str(outcome)}
        return {"job_id": job_id, "state": outcome}

    def _preferred_wait(self) -> int:
        """Seconds out of `Prefer: wait=20` (RFC 7240); what makes no sense there is not a fault, but ignored."""
        found = _wait_preference.search(self.request.headers.get("Prefer", ""))
        if found is None:
            return 0
        wait = min(int(found[1][:9]), MAX_WAIT)
        self.set_header("Preference-Applied", f"wait={wait}")
        return wait


class JobHandler(ClaimingHandler):
    """One job: a worker posts what came of it, its course may ask how it is."""

    allowed: ClassVar = {"POST": WORKERS, "GET": READERS | WORKERS}
    by_session = ("GET",)

    async def check_head(self) -> None:
        if self.request.method == "POST":
            await super().check_head()
        else:
            await ApiHandler.check_head(self)

    async def get(self, job_id: str) -> None:
        self.checked_id(job_id, "grading job id")
        try:
            job, config, hostnames = await self.service.runs.job(job_id, by=self.principal)
        except JobNotFound:
            # A grader of the course protocol may have chosen an id that looks like ours, and asks for work.
            if self.principal.role.of_course or not await self.service.named_workers.exists(job_id):
                raise
            await give_job(self, job_id)
            return
        position, stranded = await self.service.waiting.place(job)
        self.succeed(
            wire.job_detail_to_json(
                job,
                config,
                hostnames,
                position=position,
                stranded=stranded,
                worker_ids=self.principal.sees_worker_ids,
            )
        )

    async def post(self, job_id: str) -> None:
        self.checked_id(job_id, "grading job id")
        slots, holding = self.slots(), self.holding()
        data = await self._reported()
        claim = Claim(job_id=job_id, worker_id=self.worker_id, attempt=data.get("attempt"))
        result = await self.aside(worker_wire.result_from_json, data)
        (outcome,), handouts = await self.service.fleet.exchange(
            self.worker_id, [(claim, result)], slots or 0, holding, by=self.principal
        )
        if isinstance(outcome, Exception):
            raise outcome
        answer: wire.Json = {"job_id": job_id, "state": outcome}
        self.succeed(answer if slots is None else answer | {"jobs": self.handed_out(handouts)})

    async def _reported(self) -> Mapping[str, Any]:
        """The result, taken out of the wrapping that the specification prints around it."""
        value = await self.json_body(_object, mend_text=True)
        if value is None:
            raise InvalidInput([Fault(path="$", message="the body is empty; send the job's result")])
        at: tuple[str, ...] = ()
        if "success" not in value and isinstance(value.get("data"), dict):
            value, at = value["data"], ("data",)
        await self.aside(partial(_result.check, value, at=at))
        result: Mapping[str, Any] = value
        return result


class WorkerExitHandler(ApiHandler):
    """One worker."""

    allowed: ClassVar = {"DELETE": WORKERS}

    async def delete(self, worker_id: str) -> None:
        crashed = self.get_query_argument("crashed", "false")
        if crashed not in ("true", "false"):
            refuse("crashed", f"{crashed[:40]!r} is neither true nor false")
        self.checked_id(worker_id, "worker id")
        handed_back = await self.service.fleet.deregister(worker_id, crashed=crashed == "true", by=self.principal)
        self.succeed({"handed_back": handed_back})


class WorkersHandler(ApiHandler):
    """All workers."""

    by_session = ("GET",)

    async def get(self) -> None:
        listed = await self.service.fleet.workers()
        self.succeed({"workers": [wire.worker_to_json(worker, jobs, state) for worker, jobs, state in listed]})


class DrainHandler(ApiHandler):
    """Keep new jobs from a worker, or let it have them again."""

    by_session = ("POST",)

    async def post(self, worker_id: str, word: str) -> None:
        await self.service.fleet.set_draining(self.checked_id(worker_id, "worker id"), word == "drain")
        self.succeed({"worker_id": worker_id})


routes = [
    (r"/api/v1/(?:worker|grader)_register", RegisterHandler),
    (r"/api/v1/heartbeat", HeartbeatHandler),
    (r"/api/v1/grading_job", ClaimHandler),
    (r"/api/v1/grading_job/([^/]+)", JobHandler),
    (r"/api/v1/worker/([^/]+)", WorkerExitHandler),
    (r"/api/v1/workers", WorkersHandler),
    (r"/api/v1/workers/([^/]+)/(drain|resume)", DrainHandler),
]
