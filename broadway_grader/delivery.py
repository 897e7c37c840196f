"""Delivering a result: for as long as it takes, in the size that the API takes, and only while it is wanted."""

from __future__ import annotations

import logging
from collections.abc import Callable

from broadway_grader.client import ApiClient
from broadway_grader.domain import JobResult
from broadway_grader.errors import ApiError, ClaimLost, CutOff, TooLarge, UnknownWorker
from broadway_grader.retry import Backoff, retry

log = logging.getLogger(__name__)

#: A server that refuses a large body may close the connection before its 413 is read. After so many broken connections
#: in a row the body is taken to be the reason.
CUT_OFFS_TAKEN_FOR_TOO_LARGE = 3


async def deliver(client: ApiClient, worker_id: Callable[[], str], result: JobResult, backoff: Backoff) -> None:
    """Post `result` under the worker id that holds the job, until it is accepted or refused for good.

    Raises UnknownWorker: the result is lost then, and the job queued again. Any other refusal is logged.
    """
    cut_offs = 0

    async def post() -> str:
        nonlocal cut_offs
        try:
            return await client.report(worker_id(), result)
        except CutOff as error:
            cut_offs += 1
            if cut_offs % CUT_OFFS_TAKEN_FOR_TOO_LARGE == 0 and result.has_logs():
                raise TooLarge(0) from error
            raise

    what = f"reporting job {result.job_id} attempt {result.attempt}"
    while True:
        try:
            state = await retry(post, what=what, backoff=backoff)
        except TooLarge as error:
            if not result.has_logs():
                log.error("%s: given up, it is too large even without logs", what)  # noqa: TRY400
                return
            log.warning("%s: trying with half of its logs, as %s", what, error)
            result = result.with_halved_logs()
        except ClaimLost as error:
            log.warning("%s: dropped, as %s", what, error)
            return
        except UnknownWorker:
            log.warning("%s: dropped, as its worker is no longer known; the job is queued again", what)
            raise
        except ApiError as error:
            log.error("%s: dropped, as %s", what, error)  # noqa: TRY400
            return
        else:
            log.info("%s: accepted, the job is %s", what, state)
            return
