"""Results and claims on MongoDB: those that arrive at one process together share their commands.

Who reports a job mostly asks for the next one, so there are as many of these as of those. One write accepts the results
and then hands out jobs, each part of it guarded by itself. While it is on its way the next ones gather.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from broadway_api.domain import Job
from broadway_api.errors import UnknownWorker
from broadway_api.store.mongo_batches import Batches
from broadway_api.store.mongo_claims import Ask, MongoClaims
from broadway_api.store.mongo_engine import Collection
from broadway_api.store.mongo_results import Answer, MongoResults, Report
from broadway_api.store.mongo_worker_notes import WorkerNotes

#: Results of which it is noted, before they are answered, that their workers ended them. What is noted later is lost if
#: this process is killed meanwhile, and only a fleet that brings more at a time is worth that.
NOTED_AT_ONCE = 4

#: What comes of one result, or of one claim.
Served = Answer | list[Job] | UnknownWorker


class MongoExchange:
    """Where workers bring results and take jobs."""

    def __init__(self, jobs: Collection, claims: MongoClaims, results: MongoResults, notes: WorkerNotes) -> None:
        self._jobs = jobs
        self._claims = claims
        self._results = results
        self._notes = notes
        # One batch at a time: two of one process would run after the same jobs.
        self._batches: Batches[Report | Ask, Served] = Batches(self._serve, name="results and claims", at_once=1)

    async def finish(self, reports: Sequence[Report]) -> list[Answer]:
        """What each result led to, or why it was refused."""
        await self._upload(reports)
        return _of_reports(await self._batches.ask_all(reports))

    async def claim(self, ask: Ask) -> list[Job]:
        """Jobs for a worker. Raises UnknownWorker."""
        return _of_ask(await self._batches.ask(ask))

    async def exchange(self, reports: Sequence[Report], ask: Ask) -> tuple[list[Answer], list[Job]]:
        """Both. Raises UnknownWorker; the results may have been accepted then."""
        await self._upload(reports)
        *answers, jobs = await self._batches.ask_all([*reports, ask])
        return _of_reports(answers), _of_ask(jobs)

    async def close(self) -> None:
        """Finish what was asked for."""
        await self._batches.close()
        await self._notes.close()

    async def _upload(self, reports: Sequence[Report]) -> None:
        """Write long logs, for which nobody else's results have to wait."""
        if any(report.is_uploaded for report in reports):
            await asyncio.gather(*map(self._results.upload, reports))

    async def _serve(self, batch: Sequence[Report | Ask], gathered: bool) -> list[Served]:
        asks = [one for one in batch if isinstance(one, Ask)]
        under_load = gathered or len(asks) > 1
        reports = [one for one in batch if isinstance(one, Report)]
        accepting = self._results.accept(reports)
        claiming = self._claims.hand_out(asks, under_load=under_load)
        while True:
            endings, handouts = await asyncio.gather(accepting.next(), claiming.next())
            changes = [*endings, *handouts]  # in this order: see `saw_unfinished`
            if not changes:
                break
            done = await self._jobs.bulk_write(changes, ordered=False)
            all_of_it = done.modified_count == len(changes)
            await asyncio.gather(accepting.written(all_of_it=all_of_it), claiming.written(all_of_it=all_of_it))
            accepting.saw_unfinished(claiming.phases)
        noting = self._notes.write(later=under_load and not 0 < len(reports) <= NOTED_AT_ONCE)
        answers, _ = await asyncio.gather(accepting.answers(), noting)
        results, jobs = iter(answers), iter(claiming.answers())
        return [next(results) if isinstance(one, Report) else next(jobs) for one in batch]


def _of_reports(answers: Sequence[Served]) -> list[Answer]:
    return [answer for answer in answers if not isinstance(answer, list | UnknownWorker)]


def _of_ask(answer: Served) -> list[Job]:
    if isinstance(answer, list):
        return answer
    raise answer if isinstance(answer, UnknownWorker) else TypeError(answer)
