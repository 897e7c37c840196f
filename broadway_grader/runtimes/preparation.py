"""A stage's container on its way: its image at hand, then created. Begun while the stage before it still runs.

A container that was only created has no process, no control group and no network: it takes nothing from the stage that
runs, and nothing of it can be reached by that stage, its environment included. Its labels are those of every other, so
one that a killed grader leaves is found and removed like them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine

from broadway_grader.domain import Reason, Stage
from broadway_grader.ending import Ending
from broadway_grader.runtimes.container import Container
from broadway_grader.runtimes.port import Place

log = logging.getLogger(__name__)

#: Makes the container of a stage; None if it was ordered to end before there was one.
Make = Callable[[Stage, Place, Ending], Coroutine[None, None, Container | None]]


class Preparation:
    """The making of one container, for one who either takes it over or gives it up.

    It goes on in a task of its own, which is told to end and never cancelled: a cancellation between a call to the
    engine and its answer would leave a container that nobody knows of.
    """

    def __init__(self, make: Make, stage: Stage, place: Place) -> None:
        self._stage = stage
        self._place = place
        self._ending = Ending()
        self._making = asyncio.create_task(
            make(stage, place, self._ending), name=f"preparing {place.job_id}/{place.stage}"
        )

    def is_for(self, stage: Stage, place: Place) -> bool:
        """Whether it is for that very stage of that job."""
        return self._stage is stage and self._place == place

    async def container(self, ending: Ending) -> Container | None:
        """The container, from now on the caller's; None if `ending` was ordered before there was one.

        Raises what the making of it did.
        """
        await ending.first_of(self._making)
        if not self._making.done():
            self._give_up()
        return await self._making

    async def discard(self) -> Container | None:
        """The container that nobody will run, if there is one: to be removed."""
        self._give_up()
        await asyncio.wait({self._making})
        if (error := self._making.exception()) is not None:
            log.debug("stage %d of job %s will not run: %s", self._place.stage, self._place.job_id, error)
            return None
        return self._making.result()

    def _give_up(self) -> None:
        self._ending.order(Reason.RUNTIME_ERROR, "it is not wanted any more")
