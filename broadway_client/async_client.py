"""The client for programs with an event loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from broadway_client import calls
from broadway_client.calls import Config
from broadway_client.events import LogEvent, LogFeed, OnInterruption, OverviewFeed, RunEvent, RunFeed
from broadway_client.exchange import Retries
from broadway_client.models import (
    Course,
    CourseNamed,
    CourseQueue,
    Delivery,
    Failures,
    Health,
    Job,
    JobDetail,
    JobLog,
    JobPage,
    JobsFound,
    Queue,
    Run,
    RunCreated,
    RunMoved,
    RunOverview,
    RunPage,
    RunRetried,
    RunStatus,
    Secret,
    SecretNamed,
    SecretsResealed,
    Statistics,
    Student,
    Token,
    TokenMade,
    Worker,
    WorkerList,
    WorkerNamed,
)
from broadway_client.transport import AsyncTransport


class AsyncClient(AsyncTransport):
    """As `Client`, with methods to await.

    >>> async def failed_students():
    ...     async with AsyncClient(api_url, token) as client:
    ...         return [job.student["NET_ID"] async for job in client.jobs(ended_run, "failed")]
    >>> asyncio.run(failed_students())
    ['bob']
    """

    async def create_run(
        self,
        config: Config,
        *,
        course: str | None = None,
        priority: int | None = None,
        idempotency_key: str | None = None,
    ) -> RunCreated:
        """As `Client.create_run`."""
        return await self._do(
            calls.create_run(self._retries, config, course=course, priority=priority, idempotency_key=idempotency_key)
        )

    async def start_run(self, run_id: str) -> RunMoved:
        """As `Client.start_run`."""
        return await self._do(calls.start_run(self._retries, run_id))

    async def cancel_run(self, run_id: str) -> RunMoved:
        """As `Client.cancel_run`."""
        return await self._do(calls.cancel_run(self._retries, run_id))

    async def retry_run(self, run_id: str, students: Sequence[Student] | None = None) -> RunRetried:
        """As `Client.retry_run`."""
        return await self._do(calls.retry_run(self._retries, run_id, students))

    async def run(self, run_id: str) -> RunStatus:
        """As `Client.run`."""
        return await self._do(calls.run(self._retries, run_id))

    async def run_page(
        self, *, state: str | None = None, course: str | None = None, limit: int = calls.PAGE, after: str | None = None
    ) -> RunPage:
        """As `Client.run_page`."""
        return await self._do(calls.run_page(self._retries, state=state, course=course, limit=limit, after=after))

    async def deliveries(self, run_id: str) -> tuple[Delivery, ...]:
        """As `Client.deliveries`."""
        return (await self._do(calls.deliveries(self._retries, run_id))).deliveries

    async def job_page(
        self, run_id: str, states: str = "all", *, limit: int = calls.PAGE, after: str | None = None
    ) -> JobPage:
        """As `Client.job_page`."""
        return await self._do(calls.job_page(self._retries, run_id, states=states, limit=limit, after=after))

    async def failures(self, run_id: str) -> Failures:
        """As `Client.failures`."""
        return await self._do(calls.failures(self._retries, run_id))

    async def find_jobs(
        self,
        run_id: str,
        *,
        search: str | None = None,
        states: Sequence[str] = (),
        reason: str | None = None,
        cause: str | None = None,
        sort: str = "roster",
        descending: bool = False,
        limit: int = 50,
        offset: int = 0,
    ) -> JobsFound:
        """As `Client.find_jobs`."""
        return await self._do(
            calls.find_jobs(
                self._retries,
                run_id,
                search=search,
                states=states,
                reason=reason,
                cause=cause,
                sort=sort,
                descending=descending,
                limit=limit,
                offset=offset,
            )
        )

    async def statistics(self, run_id: str) -> Statistics:
        """As `Client.statistics`."""
        return await self._do(calls.statistics(self._retries, run_id))

    async def run_overview(
        self, *, state: str | None = None, course: str | None = None, limit: int = 25, after: str | None = None
    ) -> RunOverview:
        """As `Client.run_overview`."""
        return await self._do(calls.run_overview(self._retries, state=state, course=course, limit=limit, after=after))

    async def queue(self) -> tuple[CourseQueue, ...]:
        """As `Client.queue`."""
        return (await self._do(calls.queue(self._retries))).courses

    async def job(self, job_id: str) -> JobDetail:
        """As `Client.job`."""
        return await self._do(calls.job(self._retries, job_id))

    async def job_log(self, job_id: str, stage: int | None = None) -> JobLog:
        """As `Client.job_log`."""
        return await self._do(calls.job_log(self._retries, job_id, stage))

    async def workers(self) -> tuple[Worker, ...]:
        """As `Client.workers`."""
        return (await self._do(calls.workers(self._retries))).workers

    async def drain_worker(self, worker_id: str) -> WorkerNamed:
        """As `Client.drain_worker`."""
        return await self._do(calls.steer_worker(self._retries, worker_id, "drain"))

    async def resume_worker(self, worker_id: str) -> WorkerNamed:
        """As `Client.resume_worker`."""
        return await self._do(calls.steer_worker(self._retries, worker_id, "resume"))

    async def health(self) -> Health:
        """As `Client.health`."""
        return await self._do(calls.health(self._retries))

    async def readiness(self) -> Health:
        """As `Client.readiness`."""
        return await self._do(calls.readiness(self._retries))

    async def metrics(self) -> str:
        """As `Client.metrics`."""
        return await self._do(calls.metrics(self._retries))

    async def courses(self) -> tuple[Course, ...]:
        """As `Client.courses`."""
        return (await self._do(calls.courses(self._retries))).courses

    async def course(self, course_id: str) -> Course:
        """As `Client.course`."""
        return await self._do(calls.course(self._retries, course_id))

    async def put_course(
        self,
        course_id: str,
        *,
        weight: float | None = None,
        tokens: Sequence[str] | None = None,
        query_tokens: Sequence[str] | None = None,
    ) -> Course:
        """As `Client.put_course`."""
        return await self._do(
            calls.put_course(self._retries, course_id, weight=weight, tokens=tokens, query_tokens=query_tokens)
        )

    async def delete_course(self, course_id: str) -> CourseNamed:
        """As `Client.delete_course`."""
        return await self._do(calls.delete_course(self._retries, course_id))

    async def make_token(
        self, role: str, *, course: str | None = None, label: str | None = None, expires_in: int | None = None
    ) -> TokenMade:
        """As `Client.make_token`."""
        return await self._do(calls.make_token(self._retries, role, course=course, label=label, expires_in=expires_in))

    async def tokens(self) -> tuple[Token, ...]:
        """As `Client.tokens`."""
        return (await self._do(calls.tokens(self._retries))).tokens

    async def revoke_token(self, token_id: str) -> Token:
        """As `Client.revoke_token`."""
        return await self._do(calls.revoke_token(self._retries, token_id))

    async def set_secret(self, name: str, value: str, *, course: str | None = None) -> Secret:
        """As `Client.set_secret`."""
        return await self._do(calls.set_secret(self._retries, name, value, course))

    async def secrets(self, *, course: str | None = None) -> tuple[Secret, ...]:
        """As `Client.secrets`."""
        return (await self._do(calls.secrets(self._retries, course))).secrets

    async def delete_secret(self, name: str, *, course: str | None = None) -> SecretNamed:
        """As `Client.delete_secret`."""
        return await self._do(calls.delete_secret(self._retries, name, course))

    async def reseal_secrets(self) -> SecretsResealed:
        """As `Client.reseal_secrets`."""
        return await self._do(calls.reseal_secrets(self._retries))

    async def runs(self, *, state: str | None = None, course: str | None = None) -> AsyncIterator[Run]:
        """As `Client.runs`."""
        after = None
        while True:
            page = await self.run_page(state=state, course=course, after=after)
            for run in page.grading_runs:
                yield run
            if page.next is None:
                return
            after = page.next

    async def jobs(self, run_id: str, states: str = "all") -> AsyncIterator[Job]:
        """As `Client.jobs`."""
        after = None
        while True:
            page = await self.job_page(run_id, states, after=after)
            for job in page.jobs:
                yield job
            if page.next is None:
                return
            after = page.next

    async def run_events(
        self,
        run_id: str,
        *,
        last_event_id: str | None = None,
        patience: float | None = None,
        on_interruption: OnInterruption | None = None,
    ) -> AsyncIterator[RunEvent]:
        """As `Client.run_events`."""
        retries = self._retries if patience is None else Retries(patience=patience)
        feed = RunFeed(run_id, retries, last_event_id=last_event_id, on_interruption=on_interruption)
        async for event in self._events(feed):
            yield event

    async def follow_log(
        self,
        job_id: str,
        stage: int | None = None,
        *,
        last_event_id: str | None = None,
        patience: float | None = None,
        on_interruption: OnInterruption | None = None,
    ) -> AsyncIterator[LogEvent]:
        """As `Client.follow_log`."""
        retries = self._retries if patience is None else Retries(patience=patience)
        feed = LogFeed(job_id, stage, retries, last_event_id=last_event_id, on_interruption=on_interruption)
        async for event in self._events(feed):
            yield event

    async def follow_runs(
        self,
        *,
        state: str | None = None,
        course: str | None = None,
        limit: int = 25,
        after: str | None = None,
        patience: float | None = None,
        on_interruption: OnInterruption | None = None,
    ) -> AsyncGenerator[RunOverview, None]:
        """As `Client.follow_runs`."""
        retries = self._retries if patience is None else Retries(patience=patience)
        params = {"state": state, "course": course, "limit": limit, "after": after}
        feed = OverviewFeed("runs", RunOverview, retries, params=params, on_interruption=on_interruption)
        async with aclosing(self._events(feed)) as events:
            async for seen in events:
                yield seen

    async def follow_queue(
        self, *, patience: float | None = None, on_interruption: OnInterruption | None = None
    ) -> AsyncGenerator[tuple[CourseQueue, ...], None]:
        """As `Client.follow_queue`."""
        retries = self._retries if patience is None else Retries(patience=patience)
        feed = OverviewFeed("queue", Queue, retries, on_interruption=on_interruption)
        async with aclosing(self._events(feed)) as events:
            async for seen in events:
                yield seen.courses

    async def follow_workers(
        self, *, patience: float | None = None, on_interruption: OnInterruption | None = None
    ) -> AsyncGenerator[tuple[Worker, ...], None]:
        """As `Client.follow_workers`."""
        retries = self._retries if patience is None else Retries(patience=patience)
        feed = OverviewFeed("workers", WorkerList, retries, on_interruption=on_interruption)
        async with aclosing(self._events(feed)) as events:
            async for seen in events:
                yield seen.workers

    async def wait_for_run(self, run_id: str, *, patience: float | None = None) -> RunStatus:
        """As `Client.wait_for_run`."""
        async for event in self.run_events(run_id, patience=patience):
            if event.run.state.ended:
                return event.run
        return await self.run(run_id)
