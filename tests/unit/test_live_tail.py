"""Pieces of a log at their places: kept within bounds, told once, gaps counted, whoever reads how."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from broadway_api.domain import Attempt, Job, JobState, JobType, StageLog
from broadway_api.live_reader import End, Printed, Reader, StageTold, Told
from broadway_api.live_tail import STREAMS, Piece, Reading, StageNews, Tail, pieces_of

NOW = datetime(2026, 1, 31, tzinfo=UTC)
RUNNING, OVER = JobState.RUNNING, JobState.SUCCEEDED


def job(state: JobState, attempt: int = 1, *, reported: int | None = None) -> Job:
    ended = () if reported is None else (_attempt(reported),)
    return Job(
        id="j", run_id="r", type=JobType.STUDENT, seq=1, state=state, attempt=attempt, attempt_limit=3, attempts=ended
    )


def _attempt(number: int) -> Attempt:
    return Attempt(number=number, worker_id="w", reason=None, started_at=NOW, finished_at=NOW, reported=True)


def piece(start: int, text: str, stream: str = "stdout", stage: int = 0) -> Piece:
    return Piece(stage=stage, stream=stream, start=start, data=text.encode())


def printed(told: list[Told], stream: str = "stdout") -> str:
    """What was told of a stream, with a mark for each gap."""
    found = [event.what for event in told if isinstance(event.what, Printed) and event.what.piece.stream == stream]
    return "".join(f"{'~' if one.dropped else ''}{one.piece.data.decode()}" for one in found)


def ended(reader: Reader, over: Job, logs: list[StageLog]) -> list[Told]:
    """All that is told once a job has ended."""
    told = list(reader.log(over, logs)) if reader.lacks_log_of(over) else []
    told += reader.job(over)
    told += list(reader.log(over, logs)) if reader.lacks_log_of(over) else []
    assert not reader.lacks_log_of(over)
    return [*told, reader.end(over)]


@given(
    places=st.dictionaries(st.tuples(st.integers(0, 99), st.sampled_from(STREAMS)), st.integers(0, 10**11)),
    attempt=st.integers(0, 10**8),
    end=st.booleans(),
)
def test_how_far_one_has_read_fits_into_an_id(places: dict[tuple[int, str], int], attempt: int, end: bool) -> None:
    reading = Reading(attempt=attempt, places=places, to_the_end=end)
    read = Reading.parse(str(reading))
    assert read is not None
    assert str(read) == str(reading)
    assert {name: place for name, place in read.places.items() if place} == {n: p for n, p in places.items() if p}


@given(text=st.one_of(st.text(max_size=20), st.from_regex(r"[0-9.\-a-z]{0,30}", fullmatch=True)))
def test_an_id_of_anybody_elses_is_none(text: str) -> None:
    read = Reading.parse(text)
    assert read is None or str(Reading.parse(str(read))) == str(read)
    assert Reading.parse(None) is None


@given(
    text=st.text(max_size=60),
    cuts=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=12),
    limit=st.integers(1, 300),
)
def test_pieces_may_come_twice_late_or_not_at_all(text: str, cuts: list[tuple[int, int]], limit: int) -> None:
    """Whatever comes of a log, what is told of it stands in it, in order, at its place, once."""
    log = text.encode()
    tail, reader = Tail(1, limit=limit), Reader(None, None)
    told = list(reader.job(job(RUNNING)))
    for begin, length in cuts:
        data = text[begin : begin + length]
        if data:
            tail.add(piece(len(text[:begin].encode()), data))
        told += reader.tail(tail)
    place = 0
    for one in (event.what for event in told if isinstance(event.what, Printed)):
        assert one.piece.start == place + one.dropped
        assert log[one.piece.start : one.piece.end] == one.piece.data
        place = one.piece.end
    told += ended(reader, job(OVER, reported=1), [StageLog(stage=0, stdout=text, stderr="")])
    end = told[-1].what
    assert isinstance(end, End)
    whole = "".join(one.what.piece.data.decode() for one in told if isinstance(one.what, Printed))
    assert len(whole.encode()) + end.dropped == len(log)


def test_a_tail_keeps_its_last_bytes_and_slow_readers_learn_what_they_missed() -> None:
    tail, fast, slow = Tail(1, limit=8), Reader(None, None), Reader(None, None)
    told = [*slow.job(job(RUNNING)), *fast.job(job(RUNNING))]
    for number in range(10):
        tail.add(piece(4 * number, f"<{number:02d}>"))
        told += fast.tail(tail)
    assert printed(told) == "".join(f"<{number:02d}>" for number in range(10))
    late = list(slow.tail(tail))
    assert printed(late) == "~<08><09>"
    assert [one.what.dropped for one in late if isinstance(one.what, Printed)] == [32, 0]


def test_who_comes_back_goes_on_where_they_were_also_in_the_log() -> None:
    tail, first = Tail(1), Reader(None, None)
    tail.add(piece(0, "one two "))
    told = [*first.job(job(RUNNING)), *first.tail(tail)]
    second = Reader(Reading.parse(str(told[-1].reading)), None)
    tail.add(piece(8, "three "))
    more = [*second.job(job(RUNNING)), *second.tail(tail)]
    assert printed(more) == "three "
    third = Reader(more[-1].reading, None)
    log = [StageLog(stage=0, stdout="one two three four", stderr="oh")]
    rest = ended(third, job(OVER, reported=1), log)
    assert (printed(rest), printed(rest, "stderr")) == ("four", "oh")
    assert rest[-1].reading == Reading(attempt=1, to_the_end=True)


def test_a_new_attempt_is_a_new_beginning() -> None:
    reader, old, new = Reader(None, None), Tail(1), Tail(2)
    old.add(piece(0, "in vain"))
    new.add(piece(0, "again"))
    told = [*reader.job(job(RUNNING)), *reader.tail(old)]
    told += [*reader.job(job(JobState.QUEUED)), *reader.tail(old)]
    told += [*reader.tail(new), *reader.job(job(RUNNING, 2)), *reader.tail(new)]  # its output may come first
    told += ended(reader, job(OVER, 2, reported=2), [StageLog(stage=0, stdout="again and well", stderr="")])
    assert printed(told) == "in vainagain and well"
    assert [one.what.state for one in told if isinstance(one.what, Job)] == [RUNNING, JobState.QUEUED, RUNNING, OVER]


def test_the_log_of_an_attempt_that_was_not_followed_is_not_mixed_into_one_that_was() -> None:
    lost = job(JobState.FAILED, 2, reported=1)
    log = [StageLog(stage=0, stdout="of the first", stderr="")]
    followed = Reader(Reading(attempt=2, places={(0, "stdout"): 3}), None)
    assert printed(ended(followed, lost, log)) == ""
    assert printed(ended(Reader(None, None), lost, log)) == "of the first"


def test_the_log_of_an_attempt_that_failed_is_told_before_the_next_begins() -> None:
    reader = Reader(None, None)
    told = list(reader.job(job(RUNNING)))
    again = job(RUNNING, 2, reported=1)  # an infrastructure fault; who looks once in half a second misses the queue
    assert reader.lacks_log_of(again)
    told += [*reader.log(again, [StageLog(stage=0, stdout="no luck", stderr="")]), *reader.job(again)]
    assert not reader.lacks_log_of(again)
    assert [type(one.what) for one in told] == [Job, Printed, Job]


def test_stages_begin_before_their_output_and_end_after_it() -> None:
    tail, reader = Tail(1), Reader(None, None)
    told = list(reader.job(job(RUNNING)))
    tail.add(piece(0, "a"))
    tail.stages[0] = StageNews(stage=0, ended=False)
    told += reader.tail(tail)
    tail.add(piece(1, "b"))
    tail.stages |= {0: StageNews(stage=0, ended=True, exit_code=0), 1: StageNews(stage=1, ended=False)}
    told += [*reader.tail(tail), *reader.tail(tail)]
    shown = [
        (one.what.news.stage, one.what.news.ended) if isinstance(one.what, StageTold) else one.what.piece.data
        for one in told
        if isinstance(one.what, StageTold | Printed)
    ]
    assert shown == [(0, False), b"a", b"b", (0, True), (1, False)]


def test_one_stage_alone() -> None:
    tail, reader = Tail(1), Reader(None, 1)
    told = list(reader.job(job(RUNNING)))
    for stage in range(3):
        tail.add(piece(0, f"stage {stage}", stage=stage))
    told += reader.tail(tail)
    assert printed(told) == "stage 1"
    assert [one.what.news.stage for one in told if isinstance(one.what, StageTold)] == [1]


@given(text=st.text(max_size=80), size=st.integers(1, 20))
def test_a_log_is_cut_between_characters(text: str, size: int) -> None:
    pieces = list(pieces_of(0, [("stdout", text)], size))
    assert "".join(one.data.decode(errors="strict") for one in pieces) == text.encode(errors="replace").decode()
    assert all(one.data and len(one.data) < size + 4 for one in pieces)
