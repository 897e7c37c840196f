"""One campaign: a fleet, a load, faults by the seed's plan, a time to settle, and the reckoning."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

from broadway_api.domain import Job, JobState
from broadway_api.store import open_store
from broadway_api.store.port import Store
from tests.chaos import invariants, record
from tests.chaos.fleet import JOB_MAX_ATTEMPTS, TOKEN, Fleet, Managed
from tests.chaos.load import Courses
from tests.chaos.replica_set import NODES, ReplicaSet
from tests.chaos.schedule import EVERYTHING, PRIMARY, Fault, Kind, plan
from tests.e2e.leftovers import containers_of, remove_containers_of, unmount_below

RUNS_AT_ONCE = 8
FAKE_GRADERS = 5
#: Seconds that everything may take to come to rest once nothing goes wrong any more.
SETTLING = 180.0
#: Lines of each log that are shown of a job.
_LINES = 30

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What a campaign is made of; faults and load follow from it alone."""

    seed: int
    seconds: float  # with faults; settling comes on top
    store: str  # "sqlite" or "mongo"
    docker_graders: int = 1
    keep: Path | None = None  # where logs and records are copied to

    def __str__(self) -> str:
        return f"--seed {self.seed} --minutes {self.seconds / 60:g} --store {self.store}"


@dataclasses.dataclass(kw_only=True)
class Report:
    """What happened, and what should not have."""

    settings: Settings
    faults: Sequence[Fault]
    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    problems: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)  # worth a look, and no broken promise

    @property
    def kills(self) -> int:
        """Processes that were ended by kill -9."""
        return sum(count for name, count in self.counts.items() if name.startswith("kill -9"))

    def __str__(self) -> str:
        counts = "\n".join(f"  {count:7d}  {name}" for name, count in sorted(self.counts.items()))
        text = f"campaign {self.settings}: {self.kills} kills, {len(self.problems)} violations\n{counts}"
        text += "".join(f"\n\n{note}" for note in self.notes)
        if self.problems:
            faults = "\n".join(map(str, self.faults))
            problems = "\n\n".join(self.problems)
            text += f"\n\nVIOLATIONS (run again with {self.settings})\n\n{problems}\n\nthe plan of faults:\n{faults}"
        return text


async def run(settings: Settings, say: Say) -> Report:
    """Run a campaign; everything that it starts has ended when it returns or raises."""
    apis = [f"api-{number}" for number in range(3 if settings.store == "mongo" else 1)]
    graders = [f"grader-{number}" for number in range(FAKE_GRADERS)]
    graders += [f"docker-{number}" for number in range(settings.docker_graders)]
    nodes = NODES if settings.store == "mongo" else ()
    faults = plan(settings.seed, settings.seconds, graders=graders, apis=apis, nodes=nodes)
    report = Report(settings=settings, faults=faults)
    with tempfile.TemporaryDirectory(prefix="broadway-chaos-") as name:
        directory = Path(name)
        try:
            async with _store(settings, directory) as (store_url, replica_set):
                fleet = Fleet(
                    directory,
                    str(settings.seed),
                    store_url=store_url,
                    apis=len(apis),
                    fake_graders=FAKE_GRADERS,
                    docker_graders=settings.docker_graders,
                    noted=report.counts,
                )
                async with fleet:
                    await _Campaign(settings, fleet, replica_set, report, say).run()
        finally:
            await asyncio.to_thread(remove_containers_of, directory)
            await asyncio.to_thread(unmount_below, directory)
            if settings.keep is not None:
                await asyncio.to_thread(_keep, directory, settings.keep / f"{settings.store}-{settings.seed}")
    return report


def _keep(directory: Path, destination: Path) -> None:
    destination.mkdir(parents=True, exist_ok=True)
    for path in (*directory.glob("*.out"), *directory.glob("*.record")):
        shutil.copy(path, destination)


@contextlib.asynccontextmanager
async def _store(settings: Settings, directory: Path) -> AsyncIterator[tuple[str, ReplicaSet | None]]:
    if settings.store == "sqlite":
        yield f"sqlite:///{directory / 'broadway.db'}", None
        return
    async with ReplicaSet(directory) as replica_set:
        yield replica_set.url, replica_set


class _Campaign:
    def __init__(
        self, settings: Settings, fleet: Fleet, replica_set: ReplicaSet | None, report: Report, say: Say
    ) -> None:
        self._settings = settings
        self._fleet = fleet
        self._replica_set = replica_set
        self._report = report
        self._say = say
        if replica_set is not None:
            fleet.processes |= replica_set.processes

    async def run(self) -> None:
        courses = Courses(
            f"http://127.0.0.1:{self._fleet.links['courses'].port}", TOKEN, self._settings.seed, self._report.counts
        )
        enough = asyncio.Event()
        supervising = asyncio.create_task(self._fleet.supervise(), name="supervising")
        asking = asyncio.create_task(courses.ask(enough, RUNS_AT_ONCE), name="asking")
        try:
            await self._fleet.until_ready()
            self._say("the fleet is up")
            await self._strike()
            enough.set()
            self._fleet.heal()
            self._say("no more faults, settling")
            settled, _ = await asyncio.wait(
                {asking, supervising}, timeout=SETTLING, return_when=asyncio.FIRST_COMPLETED
            )
            if not settled:
                self._report.problems.append(f"not all runs ended within {SETTLING:g} s of the last fault")
            for task in settled:
                task.result()
            self._say("settled" if settled else "given up")
        finally:
            for task in (asking, supervising):
                task.cancel()
            await asyncio.gather(asking, supervising, return_exceptions=True)
        await self._fleet.stop(self._fleet.graders)
        await self._fleet.stop(self._fleet.apis)
        self._report.problems += courses.problems
        await self._reckon(courses)

    # --- faults -------------------------------------------------------------------------------------------------

    async def _strike(self) -> None:
        """Everything that the plan says."""
        begin = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for fault in self._report.faults:
                await asyncio.sleep(max(0.0, begin + fault.at - asyncio.get_running_loop().time()))
                self._say(str(fault))
                await self._inflict(fault, group)
            await asyncio.sleep(max(0.0, begin + self._settings.seconds - asyncio.get_running_loop().time()))

    async def _inflict(self, fault: Fault, group: asyncio.TaskGroup) -> None:
        if fault.kind is Kind.STEP_DOWN:
            assert self._replica_set is not None
            self._count("step down", "node", happened=await self._replica_set.step_down())
            return
        if fault.kind is Kind.CUT_OFF:
            self._count("cut off", "grader")
            group.create_task(self._fleet.cut_off(fault.target, fault.seconds))
            return
        for name in await self._targets(fault.target):
            process = self._fleet.processes[name]
            acts: dict[Kind, Callable[[float], bool]] = {
                Kind.KILL: process.kill,
                Kind.FREEZE: process.freeze,
                Kind.TERMINATE: process.terminate,
            }
            self._count(fault.kind, name.partition("-")[0], happened=acts[fault.kind](fault.seconds))

    async def _targets(self, target: str) -> Sequence[str]:
        if target == EVERYTHING:
            return [*self._fleet.processes]
        if target != PRIMARY:
            return [target]
        assert self._replica_set is not None
        primary = await self._replica_set.primary()
        return [primary] if primary else []

    def _count(self, kind: str, what: str, *, happened: bool = True) -> None:
        # What was down already cannot be killed: those faults of the plan do not count.
        self._report.counts[f"{kind} {what}"] += happened

    # --- the reckoning ------------------------------------------------------------------------------------------

    async def _reckon(self, courses: Courses) -> None:
        report = self._report
        async with open_store(self._fleet_store_url()) as store:
            evidence = await self._evidence(store, courses)
        found = list(invariants.violations(evidence))
        for violation in found[:20]:
            events = "" if violation.job_id is None else "\n" + self._event_log(violation.job_id, evidence)
            report.problems.append(violation.what + events)
        if len(found) > 20:
            report.problems.append(f"and {len(found) - 20} more")
        report.problems += self._process_problems()
        report.problems += self._leftovers()
        report.problems += self._refused(evidence)
        self._tally(evidence)

    def _fleet_store_url(self) -> str:
        return self._replica_set.url if self._replica_set else f"sqlite:///{self._fleet.directory / 'broadway.db'}"

    async def _evidence(self, store: Store, courses: Courses) -> invariants.Evidence:
        runs = []
        after = None
        while page := await store.runs(limit=500, after=after):
            runs += page
            after = page[-1].id
        jobs: dict[str, list[Job]] = {}
        for listed in runs:
            # One by one: a list may leave histories out.
            jobs[listed.id] = [await store.job(job.id) for job in await store.run_jobs(listed.id, limit=1_000)]
        logs = {
            job.id: {log.stage: log.stdout for log in await store.job_log(job.id)}
            for run_jobs in jobs.values()
            for job in run_jobs
        }
        return invariants.Evidence(
            promises=courses.promises,
            runs=runs,
            jobs=jobs,
            logs=logs,
            record=record.by_attempt(record.read(self._fleet.directory)),
            max_attempts=JOB_MAX_ATTEMPTS,
        )

    def _process_problems(self) -> Iterator[str]:
        processes: Sequence[Managed] = [*self._fleet.processes.values()]
        for process in processes:
            yield from process.problems
        for link in self._fleet.links.values():
            yield from link.faults
        for name in (*self._fleet.apis, *self._fleet.graders):
            text = (self._fleet.directory / f"{name}.out").read_text(errors="replace")
            if "Traceback" in text:
                where = text.index("Traceback")
                first = text[max(0, where - 300) : where + 3000]
                yield f"{name} wrote {text.count('Traceback')} tracebacks, the first:\n{first}"

    def _leftovers(self) -> Iterator[str]:
        for container in containers_of(self._fleet.directory):
            yield f"container {container} was left"
        for grader in self._fleet.graders:
            work = self._fleet.work(grader)
            for path in (*work.glob("jobs/*"), *(path for path in work.glob("spool/*") if path.is_file())):
                yield f"{path} was left"

    def _refused(self, evidence: invariants.Evidence) -> Iterator[str]:
        """A result set aside as refused must not be one that was accepted."""
        jobs = {job.id: job for run_jobs in evidence.jobs.values() for job in run_jobs}
        for grader in self._fleet.graders:
            for path in self._fleet.work(grader).glob("spool/refused/*.json"):
                self._report.counts["results set aside as refused"] += 1
                *_, job_id, attempt = path.stem.split("-")
                job = jobs.get(job_id)
                if job is None or int(attempt) in [done.number for done in invariants.accepted_attempts(job)]:
                    yield f"{path.name} was set aside by {grader}, and accepted by the API"

    def _tally(self, evidence: invariants.Evidence) -> None:
        counts = self._report.counts
        jobs = [job for run_jobs in evidence.jobs.values() for job in run_jobs]
        counts["runs"] = len(evidence.runs)
        counts["jobs"] = len(jobs)
        counts["attempts"] = sum(job.attempt for job in jobs)
        counts["attempts lost with their worker"] = sum(
            attempt.reason is not None and not attempt.reported for job in jobs for attempt in job.attempts
        )
        counts["attempts handed back"] = sum(
            attempt.reason is None and not attempt.reported for job in jobs for attempt in job.attempts
        )
        counts["results accepted"] = sum(len(invariants.accepted_attempts(job)) for job in jobs)
        for state in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED):
            counts[f"jobs {state}"] = sum(job.state is state for job in jobs)
        counts["jobs given up as worker_lost"] = sum(job.reason == "worker_lost" for job in jobs)
        late = list(invariants.late_begins(evidence))
        counts["superseded attempts that began late"] = len(late)
        self._report.notes += [f"began late: {entry}\n{self._event_log(job.id, evidence)}" for job, entry in late[:5]]
        counts["stages begun in containers"] = sum(
            entry.event == record.BEGIN and entry.life.startswith("docker")
            for tried in evidence.record.values()
            for entries in tried.values()
            for entry in entries
        )

    def _event_log(self, job_id: str, evidence: invariants.Evidence) -> str:
        """All that is known of one job: the store's view, the record, and what the logs say of it."""
        lines = [f"  {job!r}" for jobs in evidence.jobs.values() for job in jobs if job.id == job_id]
        lines += [f"  {entry}" for _, tried in sorted(evidence.record.get(job_id, {}).items()) for entry in tried]
        for path in sorted(self._fleet.directory.glob("*.out")):
            with path.open(errors="replace") as log:
                said = [line.rstrip() for line in log if job_id in line]
            lines += [f"  {path.stem}: {line}" for line in said[-_LINES:]]
        return "\n".join(lines)


def stopwatch(say: Say) -> Say:
    """`say` with the time since now in front."""
    begin = time.monotonic()
    return lambda text: say(f"[{time.monotonic() - begin:6.1f}] {text}")
