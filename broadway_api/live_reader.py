"""One follower of a job: what it is told, in which order, and how far it has come. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from broadway_api.domain import Job, StageLog
from broadway_api.live_tail import STREAMS, Piece, Reading, StageNews, StreamName, Tail, pieces_of

#: Bytes of an event at most.
EVENT_BYTES = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class Printed:
    """What a stage has printed, and how many bytes before it the follower is not told."""

    attempt: int
    piece: Piece
    dropped: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StageTold:
    """A stage of an attempt has begun or ended."""

    attempt: int
    news: StageNews


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """The job has ended, and everything was told but so many bytes."""

    job: Job
    dropped: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """One event. `reading` is how far its follower has come with it."""

    what: Job | StageTold | Printed | End
    reading: Reading


class Reader:
    """What one follower was told so far, of all stages or of one."""

    def __init__(self, last: Reading | None, stage: int | None) -> None:
        self._stage = stage
        self._attempt = last.attempt if last else None
        self._places: dict[StreamName, int] = dict(last.places) if last else {}
        self._job: tuple[object, ...] = ()
        self._stages: dict[int, StageNews] = {}
        self._tail: Tail | None = None
        self._index = 0
        self._dropped = 0
        self._has_all = False

    def lacks_log_of(self, job: Job) -> bool:
        """Whether the attempt that was last reported is the one that is followed, and not told to its end."""
        return not self._has_all and _reported(job) == self._attempt is not None

    def log(self, job: Job, logs: Sequence[StageLog]) -> Iterator[Told]:
        """What is left of the log of the attempt that was last reported."""
        self._has_all = True
        texts = {log.stage: (("stdout", log.stdout), ("stderr", log.stderr)) for log in logs}
        for stage in range(max([len(job.info), *(stage + 1 for stage in texts)])):
            if stage in texts:
                yield from self._pieces(pieces_of(stage, texts[stage], EVENT_BYTES))
            if stage < len(job.info):
                yield from self._news(_news_of(stage, job.info[stage]))

    def job(self, job: Job) -> Iterator[Told]:
        """How the job is, if that is news; what was told of an earlier attempt is over with a new one."""
        reported = _reported(job)
        if self._attempt is None and job.state.ended and reported is not None:
            self._begin(reported)
        elif job.attempt != self._attempt and (not job.state.ended or reported == job.attempt):
            self._begin(job.attempt)
        seen = (job.state, job.attempt, job.reason)
        if seen != self._job:
            self._job = seen
            yield self._told(job)

    def tail(self, tail: Tail) -> Iterator[Told]:
        """What is new in the tail of the attempt that is followed."""
        if tail.attempt != self._attempt:
            return
        if tail is not self._tail:
            self._tail, self._index = tail, 0
        pieces, self._index = tail.since(self._index)
        for stage in sorted({*tail.stages, *(piece.stage for piece in pieces)}):
            if stage not in self._stages:
                yield from self._news(StageNews(stage=stage, ended=False))
            yield from self._pieces([piece for piece in pieces if piece.stage == stage])
            if stage in tail.stages:
                yield from self._news(tail.stages[stage])

    def end(self, job: Job) -> Told:
        """Nothing will come any more."""
        return Told(what=End(job=job, dropped=self._dropped), reading=Reading(attempt=job.attempt, to_the_end=True))

    def _begin(self, attempt: int) -> None:
        self._attempt, self._has_all, self._dropped = attempt, False, 0
        self._places, self._stages, self._tail = {}, {}, None

    def _news(self, news: StageNews) -> Iterator[Told]:
        known = self._stages.get(news.stage)
        is_news = known is None or (not known.ended and (news.ended or news.truncated != known.truncated))
        if is_news and self._stage in (None, news.stage):
            self._stages[news.stage] = news
            yield self._told(StageTold(attempt=self._attempt or 0, news=news))

    def _pieces(self, pieces: Iterable[Piece]) -> Iterator[Told]:
        for piece in pieces:
            if self._stage not in (None, piece.stage):
                continue
            name = (piece.stage, piece.stream)
            place = self._places.get(name, 0)
            new = piece.after(place)
            if new is not None:
                self._places[name] = new.end
                self._dropped += new.start - place
                yield self._told(Printed(attempt=self._attempt or 0, piece=new, dropped=new.start - place))

    def _told(self, what: Job | StageTold | Printed) -> Told:
        return Told(what=what, reading=Reading(attempt=self._attempt or 0, places=dict(self._places)))


def _reported(job: Job) -> int | None:
    """The attempt whose log the job has."""
    return next((attempt.number for attempt in reversed(job.attempts) if attempt.reported), None)


def _news_of(stage: int, told: Mapping[str, Any]) -> StageNews:
    """How an ended stage ended; a grader of another release may say it in its own way, which is then not repeated."""
    truncated = told.get("truncated")
    return StageNews(
        stage=stage,
        ended=True,
        exit_code=code if isinstance(code := told.get("exit_code"), int) else None,
        reason=reason if isinstance(reason := told.get("reason"), str) else None,
        truncated=tuple(name for name in STREAMS if isinstance(truncated, dict) and truncated.get(name) is True),
    )
