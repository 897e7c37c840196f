"""What courses ask for during a campaign, and what they were promised: every answer of success is noted."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import random
from collections import Counter
from typing import Any

import httpx

from tests.chaos import outcomes

ENDED = ("finished", "failed", "cancelled")
#: The variable that says in a run's own env which of our runs it is.
RUN_NUMBER = "CHAOS_RUN"
_PAUSE = 0.3


class Fate(enum.StrEnum):
    """What a course does with a run after starting it."""

    WAIT = "wait"
    CANCEL = "cancel"
    RETRY = "retry"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunPlan:
    """A run to ask for."""

    number: int
    key: str
    students: tuple[str, ...]  # the outcomes of each
    stages: int
    before: str | None  # the outcomes of the pre-processing job; None: it has none
    after: str | None  # of the post-processing job
    fate: Fate
    cancel_after: float  # seconds

    def config(self) -> dict[str, Any]:
        """The body that creates it."""
        config: dict[str, Any] = {
            "env": {RUN_NUMBER: self.number},
            "student_pipeline": outcomes.pipeline(self.stages),
            "students": [{"NET_ID": f"s{number}", "OUTCOME": text} for number, text in enumerate(self.students)],
        }
        for name, text in (("pre_processing_pipeline", self.before), ("post_processing_pipeline", self.after)):
            if text is not None:
                config[name] = outcomes.pipeline(text.count(",") + 1, OUTCOME=text)
        return config


def plan_run(seed: int, number: int) -> RunPlan:
    """The `number`-th run of a campaign; the same for the same seed."""
    chance = random.Random(f"{seed}/run {number}")  # noqa: S311 - repeatable, not secret
    stages = chance.randint(1, 3)
    size = chance.choices([chance.randint(20, 60), chance.randint(60, 200)], [4, 1])[0]
    return RunPlan(
        number=number,
        key=f"chaos-{seed}-{number}",
        students=tuple(outcomes.draw(chance, stages, failing=0.1) for _ in range(size)),
        stages=stages,
        before=outcomes.draw(chance, 1, failing=0.08) if chance.random() < 0.6 else None,
        after=outcomes.draw(chance, chance.randint(1, 2), failing=0.05) if chance.random() < 0.7 else None,
        fate=chance.choices(list(Fate), [76, 12, 12])[0],
        cancel_after=chance.uniform(0, 4),
    )


@dataclasses.dataclass(kw_only=True)
class Promise:
    """What the API has acknowledged of one run."""

    plan: RunPlan
    run_id: str
    started: bool = False
    cancelled: bool = False
    retried: bool = False
    cancels_sent: int = 0
    retries_sent: int = 0  # each may have been repeated on its way


class Courses:
    """Creates, starts and follows runs, a few at a time; repeats every request until it is acknowledged."""

    def __init__(self, url: str, token: str, seed: int, noted: Counter[str]) -> None:
        self.promises: list[Promise] = []
        self.problems: list[str] = []
        self._http = httpx.AsyncClient(
            base_url=f"{url}/api/v1/", headers={"Authorization": token}, timeout=httpx.Timeout(20)
        )
        self._seed = seed
        self._noted = noted

    async def ask(self, stop: asyncio.Event, at_once: int) -> None:
        """Keep so many runs going until told to stop; returns when all of them have ended."""
        numbers = iter(range(1_000_000))

        async def one_after_another() -> None:
            while not stop.is_set():
                await self._see_through(plan_run(self._seed, next(numbers)))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(at_once):
                    group.create_task(one_after_another())
        finally:
            await self._http.aclose()

    async def _see_through(self, plan: RunPlan) -> None:
        promise = Promise(plan=plan, run_id=await self._create(plan))
        self.promises.append(promise)
        if plan.number % 5 == 0 and (again := await self._create(plan)) != promise.run_id:
            self.problems.append(f"key {plan.key} made run {promise.run_id}, and later {again}")
        await self._start(promise)
        if plan.fate is Fate.CANCEL:
            await asyncio.sleep(plan.cancel_after)
            await self._cancel(promise)
        await self._ended(promise)
        if plan.fate is Fate.RETRY:
            await self._retry(promise)
            await self._ended(promise)

    async def _create(self, plan: RunPlan) -> str:
        answer = await self._acknowledged("grading_run", plan.config(), {"Idempotency-Key": plan.key})
        if answer.status_code != 200:
            raise AssertionError(f"creating run {plan.number} was refused: {answer.text}")
        return str(answer.json()["data"]["grading_run_id"])

    async def _start(self, promise: Promise) -> None:
        answer = await self._acknowledged(f"grading_run/{promise.run_id}")
        # A request that was repeated on its way finds the run started, by itself.
        promise.started = answer.status_code == 200 or "started before" in answer.text
        if not promise.started:
            self.problems.append(f"starting run {promise.run_id}: {answer.status_code} {answer.text}")

    async def _cancel(self, promise: Promise) -> None:
        promise.cancels_sent += 1
        answer = await self._acknowledged(f"grading_run/{promise.run_id}/cancel")
        promise.cancelled = answer.status_code == 200
        self._noted["runs cancelled"] += promise.cancelled
        if not promise.cancelled and answer.status_code != 400:
            self.problems.append(f"cancelling run {promise.run_id}: {answer.status_code} {answer.text}")

    async def _retry(self, promise: Promise) -> None:
        def sent() -> None:
            promise.retries_sent += 1

        answer = await self._acknowledged(f"grading_run/{promise.run_id}/retry", before=sent)
        promise.retried = answer.status_code == 200
        self._noted["runs retried"] += promise.retried
        if not promise.retried and answer.status_code != 400:  # all succeeded, or a repetition came first
            self.problems.append(f"retrying run {promise.run_id}: {answer.status_code} {answer.text}")

    async def _ended(self, promise: Promise) -> None:
        while True:
            try:
                answer = await self._http.get(f"grading_run/{promise.run_id}")
            except httpx.TransportError:
                pass
            else:
                if answer.status_code == 404:
                    self.problems.append(f"run {promise.run_id} was acknowledged, and is unknown")
                    return
                if answer.status_code == 200 and answer.json()["data"]["state"] in ENDED:
                    return
            await asyncio.sleep(_PAUSE)

    async def _acknowledged(
        self, path: str, body: object = None, headers: dict[str, str] | None = None, before: Any = None
    ) -> httpx.Response:
        """The first answer that is neither lost nor a 5xx."""
        while True:
            if before is not None:
                before()
            try:
                answer = await self._http.post(path, json=body, headers=headers)
            except httpx.TransportError:
                self._noted["requests of courses repeated"] += 1
            else:
                if answer.status_code < 500:
                    return answer
            await asyncio.sleep(_PAUSE)
