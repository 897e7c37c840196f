"""The client for programs that wait."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

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
from broadway_client.transport import Transport


class Client(Transport):
    """A Broadway API, one method per endpoint; close it, or use it as a context manager.

    Every method may raise ClientError: Unreachable, NotBroadway, Unauthorized, Forbidden and Unavailable anywhere.
    What may be sent twice is, for `patience` seconds while the API is away; see `calls.py` for what that is.

    >>> with Client(api_url, token) as client:
    ...     client.health().store
    'ok'
    """

    def create_run(
        self,
        config: Config,
        *,
        course: str | None = None,
        priority: int | None = None,
        idempotency_key: str | None = None,
    ) -> RunCreated:
        """Store a run, which then waits to be started.

        `config` is an object, or JSON text. A key of its own makes a request that is repeated after a lost answer one
        run; give one to have that across restarts of your program, too.
        `priority` is from -10 to 10, and an operator's to say. Raises InvalidRequest with each fault's place.

        >>> config = {"students": [{"NET_ID": "amy"}], "student_pipeline": [{"image": "course/grade:1"}]}
        >>> created = client.create_run(config)
        >>> client.run(created.grading_run_id).state
        <RunState.READY: 'ready'>
        >>> client.create_run({"students": []})
        Traceback (most recent call last):
            ...
        broadway_client.errors.InvalidRequest: the body is not valid: $: "student_pipeline" is a required property
        """
        return self._do(
            calls.create_run(self._retries, config, course=course, priority=priority, idempotency_key=idempotency_key)
        )

    def start_run(self, run_id: str) -> RunMoved:
        """Start a run. Raises InvalidRequest if it was started before.

        >>> client.start_run(client.create_run(config).grading_run_id).state
        <RunState.STUDENTS: 'students'>
        """
        return self._do(calls.start_run(self._retries, run_id))

    def cancel_run(self, run_id: str) -> RunMoved:
        """End a run now. Raises InvalidRequest if it has ended otherwise.

        >>> client.cancel_run(client.create_run(config).grading_run_id).state
        <RunState.CANCELLED: 'cancelled'>
        """
        return self._do(calls.cancel_run(self._retries, run_id))

    def retry_run(self, run_id: str, students: Sequence[Student] | None = None) -> RunRetried:
        """Try again the jobs that failed or were cancelled, or those of the students given, however they ended.

        A student is given by some names and values of its roster entry. Raises InvalidRequest if the run has not ended.

        >>> run_id = client.create_run(config).grading_run_id
        >>> client.cancel_run(run_id).state
        <RunState.CANCELLED: 'cancelled'>
        >>> client.retry_run(run_id, [{"NET_ID": "amy"}]).jobs
        1
        """
        return self._do(calls.retry_run(self._retries, run_id, students))

    def run(self, run_id: str) -> RunStatus:
        """A run's state, counts and reasons.

        >>> status = client.run(ended_run)
        >>> status.state, status.counts["succeeded"], dict(status.reasons)
        (<RunState.FINISHED: 'finished'>, 1, {'stage_failed': 1})
        """
        return self._do(calls.run(self._retries, run_id))

    def run_page(
        self, *, state: str | None = None, course: str | None = None, limit: int = calls.PAGE, after: str | None = None
    ) -> RunPage:
        """One page of the runs, newest first; `runs` goes through all pages.

        >>> page = client.run_page(state="finished", limit=1)
        >>> [run.grading_run_id == ended_run for run in page.grading_runs]
        [True]
        """
        return self._do(calls.run_page(self._retries, state=state, course=course, limit=limit, after=after))

    def deliveries(self, run_id: str) -> tuple[Delivery, ...]:
        """What the cluster's webhook is told of a run, one for each of its ends, for seven days. Raises NotFound.

        None where the operator has set up no webhook.

        >>> client.deliveries(ended_run)
        ()
        """
        return self._do(calls.deliveries(self._retries, run_id)).deliveries

    def job_page(
        self, run_id: str, states: str = "all", *, limit: int = calls.PAGE, after: str | None = None
    ) -> JobPage:
        """A run and one page of its jobs; `jobs` goes through all pages.

        `states` is a job state, `all` or `unfinished`.

        >>> page = client.job_page(ended_run, limit=1)
        >>> page.jobs[0].student, page.next is None
        ({'NET_ID': 'amy'}, False)
        """
        return self._do(calls.job_page(self._retries, run_id, states=states, limit=limit, after=after))

    def failures(self, run_id: str) -> Failures:
        """Why jobs of a run failed: few causes of many failures.

        >>> for cause in client.failures(ended_run).causes:
        ...     print(cause.jobs, cause.reason.value, cause.cause, cause.example.student["NET_ID"])
        1 stage_failed ValueError: no idea bob
        """
        return self._do(calls.failures(self._retries, run_id))

    def find_jobs(
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
        """Jobs of a run that fit a search, sorted, 200 at most; to read all jobs of a run `jobs` is better.

        `search` is a part of the roster entry, or a job's id; `sort` is `roster`, `state`, `score`, `duration`,
        `finished` or `attempt`.

        >>> found = client.find_jobs(ended_run, states=["failed"], sort="duration", descending=True)
        >>> found.total, found.jobs[0].cause
        (1, 'ValueError: no idea')
        """
        return self._do(
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

    def statistics(self, run_id: str) -> Statistics:
        """How students' durations and scores spread.

        >>> client.statistics(ended_run).scores is None    # no stage of it has results
        True
        """
        return self._do(calls.statistics(self._retries, run_id))

    def run_overview(
        self, *, state: str | None = None, course: str | None = None, limit: int = 25, after: str | None = None
    ) -> RunOverview:
        """One page of the runs, each with its jobs counted, newest first; 100 at most.

        >>> client.run_overview(limit=1, state="finished").grading_runs[0].counts["failed"]
        1
        """
        return self._do(calls.run_overview(self._retries, state=state, course=course, limit=limit, after=after))

    def queue(self) -> tuple[CourseQueue, ...]:
        """What the courses have in the queue, and what of it no worker can run.

        >>> [one.course for one in client.queue() if one.stranded]
        []
        """
        return self._do(calls.queue(self._retries)).courses

    def job(self, job_id: str) -> JobDetail:
        """All about a job but its output.

        >>> job = client.job(failed_job)
        >>> job.reason, job.info[0]["exit_code"], job.worker_hostname
        (<Reason.STAGE_FAILED: 'stage_failed'>, 3, 'grader-1')
        """
        return self._do(calls.job(self._retries, job_id))

    def job_log(self, job_id: str, stage: int | None = None) -> JobLog:
        """What a job's last attempt printed; `stage` keeps one stage of it.

        >>> client.job_log(failed_job).stages[0].stderr.splitlines()
        ['ValueError: no idea']
        """
        return self._do(calls.job_log(self._retries, job_id, stage))

    def workers(self) -> tuple[Worker, ...]:
        """All workers.

        >>> [(worker.hostname, worker.slots, worker.state.value) for worker in client.workers()]
        [('grader-1', 2, 'alive')]
        """
        return self._do(calls.workers(self._retries)).workers

    def drain_worker(self, worker_id: str) -> WorkerNamed:
        """Give a worker no new jobs; it keeps what it holds. Raises NotFound.

        >>> client.drain_worker(client.workers()[0].worker_id).worker_id == worker_id
        True
        """
        return self._do(calls.steer_worker(self._retries, worker_id, "drain"))

    def resume_worker(self, worker_id: str) -> WorkerNamed:
        """Give a worker jobs again, also one in quarantine. Raises NotFound.

        >>> client.resume_worker(worker_id).worker_id == worker_id
        True
        """
        return self._do(calls.steer_worker(self._retries, worker_id, "resume"))

    def health(self) -> Health:
        """Whether the API works. Raises Unavailable if its store does not answer.

        >>> client.health().store
        'ok'
        """
        return self._do(calls.health(self._retries))

    def readiness(self) -> Health:
        """Whether the API process is to be sent requests. Raises Unavailable if not: it stops, or its store is away.

        >>> client.readiness().store
        'ok'
        """
        return self._do(calls.readiness(self._retries))

    def metrics(self) -> str:
        """How process and cluster are, in Prometheus's text format; operators only, unless opened to everybody.

        >>> [line for line in client.metrics().splitlines() if line.startswith("broadway_store_up")]
        ['broadway_store_up 1.0']
        """
        return self._do(calls.metrics(self._retries))

    def courses(self) -> tuple[Course, ...]:
        """All courses; operators only, as with all calls about courses and tokens.

        >>> course = client.put_course("cs225")
        >>> "cs225" in [course.course for course in client.courses()]
        True
        """
        return self._do(calls.courses(self._retries)).courses

    def course(self, course_id: str) -> Course:
        """One course. Raises NotFound.

        >>> client.course("nobody")
        Traceback (most recent call last):
            ...
        broadway_client.errors.NotFound: there is no course nobody
        """
        return self._do(calls.course(self._retries, course_id))

    def put_course(
        self,
        course_id: str,
        *,
        weight: float | None = None,
        tokens: Sequence[str] | None = None,
        query_tokens: Sequence[str] | None = None,
    ) -> Course:
        """Make a course, or change what is given of one.

        `weight` is its share of the fleet against those of the other courses; `tokens` and `query_tokens` replace its
        configured admin and query tokens. Those of `make_token` are better: only they can expire.

        >>> client.put_course("cs241", weight=2).weight
        2
        """
        return self._do(
            calls.put_course(self._retries, course_id, weight=weight, tokens=tokens, query_tokens=query_tokens)
        )

    def delete_course(self, course_id: str) -> CourseNamed:
        """Take a course away, and revoke the tokens made for it; its runs go on. Raises NotFound.

        >>> client.delete_course("cs241").course
        'cs241'
        """
        return self._do(calls.delete_course(self._retries, course_id))

    def make_token(
        self, role: str, *, course: str | None = None, label: str | None = None, expires_in: int | None = None
    ) -> TokenMade:
        """Make a token; `expires_in` is in seconds. Its text is in this answer and nowhere else.

        Not repeated after an answer that got lost: see `tokens` for what was made, revoke it, and make another.

        >>> made = client.make_token("query", course="cs225", label="status page", expires_in=3600)
        >>> Client(api_url, made.token).run_page().grading_runs
        ()
        """
        return self._do(calls.make_token(self._retries, role, course=course, label=label, expires_in=expires_in))

    def tokens(self) -> tuple[Token, ...]:
        """The tokens that were made, without their texts.

        >>> [(token.role.value, token.label, token.state) for token in client.tokens()]
        [('query', 'status page', 'valid')]
        """
        return self._do(calls.tokens(self._retries)).tokens

    def revoke_token(self, token_id: str) -> Token:
        """Revoke a token; it is refused within two seconds. Raises NotFound.

        >>> client.revoke_token(made.token_id).state
        'revoked'
        """
        return self._do(calls.revoke_token(self._retries, token_id))

    def set_secret(self, name: str, value: str, *, course: str | None = None) -> Secret:
        """Set or replace a secret of a course.

        >>> client.set_secret("DEPLOY_KEY", "not told again").name
        'DEPLOY_KEY'
        """
        return self._do(calls.set_secret(self._retries, name, value, course))

    def secrets(self, *, course: str | None = None) -> tuple[Secret, ...]:
        """The names of a course's secrets; no call tells a value.

        >>> [secret.name for secret in client.secrets()]
        ['DEPLOY_KEY']
        """
        return self._do(calls.secrets(self._retries, course)).secrets

    def delete_secret(self, name: str, *, course: str | None = None) -> SecretNamed:
        """Delete a secret. Raises NotFound.

        >>> client.delete_secret("DEPLOY_KEY").name
        'DEPLOY_KEY'
        """
        return self._do(calls.delete_secret(self._retries, name, course))

    def reseal_secrets(self) -> SecretsResealed:
        """Seal every secret with the API's newest key; operators only.

        >>> client.reseal_secrets().secrets
        0
        """
        return self._do(calls.reseal_secrets(self._retries))

    def runs(self, *, state: str | None = None, course: str | None = None) -> Iterator[Run]:
        """All runs, newest first, read page by page.

        >>> [run.grading_run_id == ended_run for run in client.runs(state="finished")]
        [True]
        """
        after = None
        while True:
            page = self.run_page(state=state, course=course, after=after)
            yield from page.grading_runs
            if page.next is None:
                return
            after = page.next

    def jobs(self, run_id: str, states: str = "all") -> Iterator[Job]:
        """A run's jobs in roster order, read page by page.

        >>> [(job.student["NET_ID"], job.state.value) for job in client.jobs(ended_run)]
        [('amy', 'succeeded'), ('bob', 'failed')]
        """
        after = None
        while True:
            page = self.job_page(run_id, states, after=after)
            yield from page.jobs
            if page.next is None:
                return
            after = page.next

    def run_events(
        self,
        run_id: str,
        *,
        last_event_id: str | None = None,
        patience: float | None = None,
        on_interruption: OnInterruption | None = None,
    ) -> Iterator[RunEvent]:
        """A run as it is now and after each change, until it has ended; goes on where it was after interruptions.

        `patience`: seconds that the API may be away at a time. Nothing comes if the run had ended at `last_event_id`.

        >>> [event.run.state for event in client.run_events(ended_run)]
        [<RunState.FINISHED: 'finished'>]
        """
        retries = self._retries if patience is None else Retries(patience=patience)
        feed = RunFeed(run_id, retries, last_event_id=last_event_id, on_interruption=on_interruption)
        yield from self._events(feed)

    def follow_log(
        self,
        job_id: str,
        stage: int | None = None,
        *,
        last_event_id: str | None = None,
        patience: float | None = None,
        on_interruption: OnInterruption | None = None,
    ) -> Iterator[LogEvent]:
        """What a job prints, as it does, until it has ended; goes on where it was after interruptions.

        Of a job that has ended the log, of one that waits nothing until it runs. `patience` as in `run_events`. Raises
        NotFound.

        >>> [event.name for event in client.follow_log(failed_job)]
        ['job', 'output', 'stage', 'end']
        """
        retries = self._retries if patience is None else Retries(patience=patience)
        feed = LogFeed(job_id, stage, retries, last_event_id=last_event_id, on_interruption=on_interruption)
        yield from self._events(feed)

    def follow_runs(
        self,
        *,
        state: str | None = None,
        course: str | None = None,
        limit: int = 25,
        after: str | None = None,
        patience: float | None = None,
        on_interruption: OnInterruption | None = None,
    ) -> Generator[RunOverview, None, None]:
        """What `run_overview` gives, as it is now and within two seconds of each change, without end.

        `patience` as in `run_events`. After an interruption it comes once more, even if nothing has changed.

        >>> [run.state.value for run in next(client.follow_runs(limit=1, state="finished")).grading_runs]
        ['finished']
        """
        retries = self._retries if patience is None else Retries(patience=patience)
        params = {"state": state, "course": course, "limit": limit, "after": after}
        feed = OverviewFeed("runs", RunOverview, retries, params=params, on_interruption=on_interruption)
        yield from self._events(feed)

    def follow_queue(
        self, *, patience: float | None = None, on_interruption: OnInterruption | None = None
    ) -> Generator[tuple[CourseQueue, ...], None, None]:
        """What `queue` gives, as `follow_runs` does.

        >>> [one.course for one in next(client.follow_queue()) if one.stranded]
        []
        """
        retries = self._retries if patience is None else Retries(patience=patience)
        for seen in self._events(OverviewFeed("queue", Queue, retries, on_interruption=on_interruption)):
            yield seen.courses

    def follow_workers(
        self, *, patience: float | None = None, on_interruption: OnInterruption | None = None
    ) -> Generator[tuple[Worker, ...], None, None]:
        """What `workers` gives, as `follow_runs` does; operators only.

        >>> [worker.hostname for worker in next(client.follow_workers())]
        ['grader-1']
        """
        retries = self._retries if patience is None else Retries(patience=patience)
        for seen in self._events(OverviewFeed("workers", WorkerList, retries, on_interruption=on_interruption)):
            yield seen.workers

    def wait_for_run(self, run_id: str, *, patience: float | None = None) -> RunStatus:
        """The run once it has ended.

        >>> client.wait_for_run(ended_run).success
        True
        """
        for event in self.run_events(run_id, patience=patience):
            if event.run.state.ended:
                return event.run
        return self.run(run_id)
