"""Results and claims on MongoDB: those that arrive at one process together share their commands.

Who reports a job mostly asks for the next one, so there are as many of these as of those. One write accepts the results
and then hands out jobs, each part of it guarded by itself. While it is on its way the next ones gather.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from pymongo.errors import AutoReconnect

from broadway_api.domain import Job
from broadway_api.errors import UnknownWorker
from broadway_api.store.mongo_batches import Answers, Batches
from broadway_api.store.mongo_changes import Change, statements
from broadway_api.store.mongo_claims import Ask, MongoClaims
from broadway_api.store.mongo_engine import Collection
from broadway_api.store.mongo_results import Answer, Ending, MongoResults, Report
from broadway_api.store.mongo_worker_notes import WorkerNotes

#: Results of which it is noted, before they are answered, that their workers ended them. What is noted later is lost if
#: this process is killed meanwhile, and only a fleet that brings more at a time is worth that.
NOTED_AT_ONCE = 4

#: Seconds for which calls are taken to come faster than batches, although one of them is alone in its batch.
LULL = 0.005

#: What comes of one result, or of one claim.
Served = Answer | list[Job] | UnknownWorker


class MongoExchange:
    """Where workers bring results and take jobs."""

    def __init__(self, jobs: Collection, claims: MongoClaims, results: MongoResults, notes: WorkerNotes) -> None:
        self._jobs = jobs
        self._claims = claims
        self._results = results
        self._notes = notes
        self._busy_until = -math.inf
        self._batches: Batches[Ending | Report | Ask, Served] = Batches(self._write, name="results and claims")

    async def finish(self, reports: Sequence[Report]) -> list[Answer]:
        """What each result led to, or why it was refused."""
        await self._upload(reports)
        return _of_reports(await self._batches.ask(*map(self._results.look_at, reports)))

    async def claim(self, ask: Ask) -> list[Job]:
        """Jobs for a worker. Raises UnknownWorker."""
        return _of_ask((await self._batches.ask(ask))[0])

    async def exchange(self, reports: Sequence[Report], ask: Ask) -> tuple[list[Answer], list[Job]]:
        """Both. Raises UnknownWorker; the results may have been accepted then."""
        await self._upload(reports)
        *answers, jobs = await self._batches.ask(*map(self._results.look_at, reports), ask)
        return _of_reports(answers), _of_ask(jobs)

    async def close(self) -> None:
        """Finish what was asked for."""
        await self._batches.close()
        await self._notes.close()

    async def _upload(self, reports: Sequence[Report]) -> None:
        """Write long logs, for which nobody else's results have to wait."""
        if any(report.is_uploaded for report in reports):
            await asyncio.gather(*map(self._results.upload, reports))

    async def _write(self, batch: Sequence[Ending | Report | Ask], gathered: bool) -> Answers[Served]:
        asks = [one for one in batch if isinstance(one, Ask)]
        clock = asyncio.get_running_loop().time
        is_shared = gathered or len(asks) > 1
        under_load = is_shared or clock() < self._busy_until
        reports = [one for one in batch if not isinstance(one, Ask)]
        accepting = self._results.accept(reports)
        claiming = self._claims.hand_out(asks, under_load=under_load)
        while True:
            # Not as two tasks, which would have to wait their turn: under load neither has anything to wait for.
            endings, handouts = await accepting.next(), await claiming.next()
            changes = [*endings, *handouts]  # in this order: see `saw_unfinished`
            if not changes:
                break
            all_of_it = await self._make(changes)
            await accepting.written(all_of_it=all_of_it)
            await claiming.written(all_of_it=all_of_it)
            accepting.saw_unfinished(claiming.phases)
        if is_shared:
            self._busy_until = clock() + LULL
        at_once = 0 < len(reports) <= NOTED_AT_ONCE or not under_load

        async def answers() -> list[Served]:
            if at_once:
                of_reports, _ = await asyncio.gather(accepting.answers(), self._notes.write())
            else:
                await self._notes.write(later=True)
                of_reports = await accepting.answers()
            results, jobs = iter(of_reports), iter(claiming.answers())
            return [next(jobs) if isinstance(one, Ask) else next(results) for one in batch]

        return answers

    async def _make(self, changes: Sequence[Change]) -> bool:
        """Write changes; return whether all of them are ours. Else somebody was quicker."""
        try:
            done = await self._jobs.bulk_write(statements(changes), ordered=False)
        except AutoReconnect:  # the driver repeats no statement about several jobs; the guards make it harmless
            done = await self._jobs.bulk_write(statements(changes), ordered=False)
        return done.modified_count == len(changes)


def _of_reports(answers: Sequence[Served]) -> list[Answer]:
    return [answer for answer in answers if not isinstance(answer, list | UnknownWorker)]


def _of_ask(answer: Served) -> list[Job]:
    if isinstance(answer, list):
        return answer
    raise answer if isinstance(answer, UnknownWorker) else TypeError(answer)
