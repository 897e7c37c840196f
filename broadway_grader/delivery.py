"""Delivering a result: kept on disk until it is answered, posted for as long as it takes, in the size that is taken."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from broadway_grader.client import ApiClient
from broadway_grader.domain import JobResult
from broadway_grader.errors import ApiError, CutOff, TooLarge, UnknownWorker
from broadway_grader.registration import Membership
from broadway_grader.retry import Backoff, retry
from broadway_grader.spool import Spool, SpooledResult

log = logging.getLogger(__name__)

#: A server that refuses a large body may close the connection before its 413 is read. After so many broken connections
#: in a row the body is taken to be the reason.
CUT_OFFS_TAKEN_FOR_TOO_LARGE = 3
#: Characters of logs below which it never is: every server takes so much, and broken connections are the network's, or
#: those of an API that dies again and again, which must not cost anybody their logs.
ALWAYS_SMALL_ENOUGH = 65_536

#: Brings a result to the API under a worker id, and returns the job's state after it: `ApiClient.report`, or like it.
Report = Callable[[str, JobResult], Awaitable[str]]


class Delivery:
    """Brings results to the API. What is cut short here is finished by the grader's next life."""

    def __init__(self, client: ApiClient, membership: Membership, spool: Spool, backoff: Backoff) -> None:
        self._client = client
        self._membership = membership
        self._spool = spool
        self._backoff = backoff

    async def deliver(self, result: JobResult, worker_id: Callable[[], str], report: Report) -> bool:
        """Keep `result` on disk, then post it by `report` until it is answered; whether the API has accepted it.

        `worker_id` gives the id that holds the job, which may change meanwhile. A result that is refused for good is
        logged and set aside.
        """
        return await self._deliver(result, worker_id, report, kept_for=None)

    async def redeliver(self, spooled: SpooledResult) -> bool:
        """The same for a result that an earlier life has kept."""
        report = self._client.report
        return await self._deliver(spooled.result, lambda: spooled.worker_id, report, kept_for=spooled.worker_id)

    async def _deliver(
        self, result: JobResult, worker_id: Callable[[], str], report: Report, kept_for: str | None
    ) -> bool:
        async def post(body: JobResult) -> str:
            nonlocal kept_for
            holder = worker_id()
            if holder != kept_for:
                await self._keep(SpooledResult(worker_id=holder, result=result))
                kept_for = holder
            return await report(holder, body)

        try:
            try:
                state = await self._post_in_size(post, result)
            except UnknownWorker as error:
                # The same answer comes from an API that was started with another token, which must not cost the
                # result: only one that knows our token, and so registers us, can know that the id is gone.
                await self._membership.renew(error.worker_id)
                state = await self._post_in_size(post, result)
        except ApiError as error:
            log.error(  # noqa: TRY400
                "result of job %s attempt %s is given up and set aside: %s", result.job_id, result.attempt, error
            )
            await asyncio.to_thread(self._spool.refuse, result)
            return False
        log.info("result of job %s attempt %s is accepted, the job is %s", result.job_id, result.attempt, state)
        await asyncio.to_thread(self._spool.remove, result)
        return True

    async def _post_in_size(self, post: Callable[[JobResult], Awaitable[str]], body: JobResult) -> str:
        """Post until answered, with ever less of the logs while that is too large; raises any other refusal."""
        cut_offs = 0

        async def once() -> str:
            nonlocal cut_offs
            try:
                return await post(body)
            except CutOff as error:
                cut_offs += 1
                if cut_offs % CUT_OFFS_TAKEN_FOR_TOO_LARGE == 0 and body.log_size() > ALWAYS_SMALL_ENOUGH:
                    raise TooLarge(0) from error
                raise

        while True:
            try:
                return await retry(
                    once, "reporting job %s attempt %s", body.job_id, body.attempt, backoff=self._backoff
                )
            except TooLarge as error:
                if not body.has_logs():
                    raise
                log.warning(
                    "result of job %s attempt %s is tried with half of its logs: %s", body.job_id, body.attempt, error
                )
                body = body.with_halved_logs()

    async def _keep(self, spooled: SpooledResult) -> None:
        try:
            await asyncio.to_thread(self._spool.put, spooled)
        except OSError as error:
            # A full disk: the result is as safe as this process, which is better than not at all.
            log.error("cannot keep the result of job %s on disk: %s", spooled.result.job_id, error)  # noqa: TRY400
