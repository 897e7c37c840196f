"""The tables of the SQLite store, and rows as domain values.

Times are whole milliseconds since 1970. What no query looks into is JSON text.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from broadway_api.domain import Delivery, Job, JobState, JobType, Reason, Run, RunState, Worker
from broadway_api.store import records

_VERSION_1 = """
CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    course TEXT NOT NULL,
    state TEXT NOT NULL,
    config TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER,
    settled INTEGER NOT NULL DEFAULT 0,
    idempotency_key TEXT,
    idempotency_fingerprint TEXT
);
CREATE UNIQUE INDEX runs_by_idempotency_key ON runs (course, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX runs_by_course ON runs (course, id);
CREATE INDEX runs_by_end ON runs (finished_at) WHERE settled = 1 AND finished_at IS NOT NULL;
CREATE INDEX runs_unsettled ON runs (id) WHERE settled = 0 AND state <> 'ready';
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    run_id TEXT NOT NULL,
    type TEXT NOT NULL,
    seq INTEGER NOT NULL,
    student TEXT,
    state TEXT NOT NULL,
    rank REAL,
    reason TEXT,
    attempt INTEGER NOT NULL,
    attempt_limit INTEGER NOT NULL,
    worker_id TEXT,
    lease_expires_at INTEGER,
    avoid_worker_id TEXT,
    avoid_until INTEGER,
    queued_at INTEGER,
    started_at INTEGER,
    finished_at INTEGER,
    attempts TEXT NOT NULL DEFAULT '[]',
    info TEXT NOT NULL DEFAULT '[]'
);
CREATE UNIQUE INDEX jobs_by_run ON jobs (run_id, seq);
CREATE INDEX jobs_by_run_and_state ON jobs (run_id, state, type, reason);
CREATE INDEX jobs_queue ON jobs (rank, id) WHERE state = 'queued';
CREATE INDEX jobs_held ON jobs (worker_id) WHERE state = 'running';
CREATE INDEX jobs_by_lease ON jobs (lease_expires_at) WHERE state = 'running';
CREATE TABLE logs (
    job_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    stage INTEGER NOT NULL,
    stdout TEXT NOT NULL,
    stderr TEXT NOT NULL,
    PRIMARY KEY (job_id, attempt, stage)
);
CREATE TABLE workers (
    id TEXT PRIMARY KEY,
    hostname TEXT NOT NULL,
    slots INTEGER NOT NULL,
    runtime TEXT NOT NULL,
    version TEXT NOT NULL,
    labels TEXT NOT NULL,
    registered_at INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    jobs_processed INTEGER NOT NULL,
    draining INTEGER NOT NULL,
    strikes INTEGER NOT NULL,
    quarantined_until INTEGER
);
CREATE TABLE courses (
    course TEXT PRIMARY KEY,
    weight REAL NOT NULL,
    last_rank REAL NOT NULL
);
CREATE TABLE queue (virtual_time REAL NOT NULL);
INSERT INTO queue VALUES (0);
"""

# Courses got an entry in the directory, which has their weight; what was `courses` is their place in the queue.
_VERSION_2 = """
ALTER TABLE courses RENAME TO course_ranks;
ALTER TABLE course_ranks DROP COLUMN weight;
CREATE TABLE directory (version INTEGER NOT NULL, content TEXT NOT NULL);
INSERT INTO directory VALUES (0, '{"courses":{},"tokens":{}}');
ALTER TABLE workers ADD COLUMN owner TEXT;
"""

# The results of trusted stages. Scores are of no type: a whole number stays one.
_VERSION_3 = """
ALTER TABLE jobs ADD COLUMN score;
ALTER TABLE jobs ADD COLUMN max_score;
ALTER TABLE jobs ADD COLUMN results TEXT;
"""

# Workers that choose their ids themselves, and assignments, both of the course protocol.
_VERSION_4 = """
ALTER TABLE workers ADD COLUMN name TEXT;
ALTER TABLE workers ADD COLUMN asked_at INTEGER;
CREATE UNIQUE INDEX workers_by_name ON workers (name) WHERE name IS NOT NULL;
CREATE TABLE assignments (
    course TEXT NOT NULL,
    name TEXT NOT NULL,
    config TEXT NOT NULL,
    PRIMARY KEY (course, name)
);
"""

_VERSION_5 = """
CREATE TABLE secrets (
    course TEXT NOT NULL,
    name TEXT NOT NULL,
    sealed TEXT NOT NULL,
    changed_at INTEGER NOT NULL,
    PRIMARY KEY (course, name)
);
"""

# The queue got priorities, which share it by lanes, and requirements, by which it is divided. A course's place became
# one in each lane, with pre- and post-processing apart.
_VERSION_6 = """
ALTER TABLE runs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN requirement TEXT NOT NULL DEFAULT '';
DROP INDEX jobs_queue;
CREATE INDEX jobs_by_urgency ON jobs (requirement, priority DESC, rank, id) WHERE state = 'queued';
CREATE INDEX jobs_by_fairness ON jobs (requirement, rank, id) WHERE state = 'queued';
CREATE TABLE lanes (priority INTEGER PRIMARY KEY, virtual_time REAL NOT NULL);
CREATE TABLE flows (
    course TEXT NOT NULL,
    priority INTEGER NOT NULL,
    in_front INTEGER NOT NULL,
    stranded TEXT NOT NULL,
    last_rank REAL NOT NULL,
    PRIMARY KEY (course, priority, in_front, stranded)
);
INSERT INTO flows SELECT course, 0, 0, '', last_rank FROM course_ranks;
DROP TABLE course_ranks;
"""

# What webhooks are told: the outbox.
_VERSION_7 = """
CREATE TABLE deliveries (
    id TEXT PRIMARY KEY,
    body TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    due_at INTEGER
);
CREATE INDEX deliveries_due ON deliveries (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX deliveries_by_age ON deliveries (created_at);
"""

# Whose deliveries they are, and what came of them.
_VERSION_8 = """
ALTER TABLE deliveries ADD COLUMN run_id TEXT NOT NULL DEFAULT '';
ALTER TABLE deliveries ADD COLUMN heard_at INTEGER;
ALTER TABLE deliveries ADD COLUMN fault TEXT;
UPDATE deliveries SET run_id = json_extract(body, '$.grading_run_id');
CREATE INDEX deliveries_by_run ON deliveries (run_id, created_at);
"""

# The causes of failures, counted without reading the jobs.
_VERSION_9 = """
ALTER TABLE jobs ADD COLUMN cause TEXT NOT NULL DEFAULT '';
CREATE INDEX jobs_by_cause ON jobs (run_id, reason, cause, seq) WHERE state = 'failed';
"""

# Positions are told from openings, which what is queued already has not: it is counted, as far as it goes.
_VERSION_10 = """
CREATE TABLE openings (
    run_id TEXT NOT NULL,
    type TEXT NOT NULL,
    requirement TEXT NOT NULL,
    priority INTEGER NOT NULL,
    first REAL NOT NULL,
    step REAL NOT NULL,
    jobs INTEGER NOT NULL,
    PRIMARY KEY (run_id, type)
);
CREATE TABLE frontiers (
    requirement TEXT NOT NULL,
    priority INTEGER NOT NULL,
    rank REAL NOT NULL,
    PRIMARY KEY (requirement, priority)
);
INSERT INTO frontiers SELECT requirement, priority, max(rank) FROM jobs WHERE state = 'queued' GROUP BY 1, 2;
"""

# The very line that a cause was made of.
_VERSION_11 = """
ALTER TABLE jobs ADD COLUMN said TEXT NOT NULL DEFAULT '';
"""

# Leases are renewed all the time, and looked at once in a while: that reads all running jobs, of which there are few.
_VERSION_12 = """
DROP INDEX jobs_by_lease;
"""

#: Each makes a version of the schema out of the one before, the first out of an empty file; what was released is never
#: changed. One statement ends with a semicolon and a line feed.
VERSIONS = (
    *(_VERSION_1, _VERSION_2, _VERSION_3, _VERSION_4, _VERSION_5, _VERSION_6, _VERSION_7, _VERSION_8, _VERSION_9),
    *(_VERSION_10, _VERSION_11, _VERSION_12),
)

_SHORT_COLUMNS = (
    "id, run_id, type, seq, student, state, priority, requirement, reason, attempt, attempt_limit, worker_id,"
    " lease_expires_at, avoid_worker_id, avoid_until, queued_at, started_at, finished_at, score, max_score"
)

#: The job columns that `job_from_row` reads, and those with nothing in place of what may be long.
JOB_COLUMNS = f"{_SHORT_COLUMNS}, attempts, info, results, cause, said"
VIEWED_COLUMNS = f"{_SHORT_COLUMNS}, '[]' AS attempts, '[]' AS info, NULL AS results, cause, said"
LISTED_COLUMNS = f"{_SHORT_COLUMNS}, '[]' AS attempts, '[]' AS info, NULL AS results, '' AS cause, '' AS said"


def run_from_row(row: sqlite3.Row) -> Run:
    """A row of `runs`."""
    return Run(
        id=row["id"],
        course=row["course"],
        state=RunState(row["state"]),
        priority=row["priority"],
        config=records.config_from_text(row["config"]),
        created_at=records.from_millis(row["created_at"]),
        started_at=_time(row["started_at"]),
        finished_at=_time(row["finished_at"]),
    )


_JOB_TYPES = {job_type.value: job_type for job_type in JobType}
_JOB_STATES = {state.value: state for state in JobState}


def job_from_row(row: Sequence[Any]) -> Job:
    """A row of `jobs` that begins with JOB_COLUMNS: by place, as finding a column by its name costs as much.

    So does asking an enum for its member, which is looked up instead.
    """
    (id_, run_id, job_type, seq, student, state, priority, requirement, reason, attempt, attempt_limit) = row[:11]
    (worker_id, lease_expires_at, avoid_worker_id, avoid_until, queued_at, started_at, finished_at) = row[11:18]
    (score, max_score, attempts, info, results, cause, said) = row[18:25]
    return Job(
        id=id_,
        run_id=run_id,
        type=_JOB_TYPES[job_type],
        seq=seq,
        student=None if student is None else records.from_text(student),
        state=_JOB_STATES[state],
        priority=priority,
        requirement=requirement,
        reason=None if reason is None else Reason(reason),
        attempt=attempt,
        attempt_limit=attempt_limit,
        worker_id=worker_id,
        lease_expires_at=_time(lease_expires_at),
        avoid_worker_id=avoid_worker_id,
        avoid_until=_time(avoid_until),
        queued_at=_time(queued_at),
        started_at=_time(started_at),
        finished_at=_time(finished_at),
        attempts=records.attempts_from_text(attempts),
        info=tuple(records.from_text(info)),
        score=score,
        max_score=max_score,
        results=None if results is None else records.from_text(results),
        cause=cause,
        said=said,
    )


#: The columns that `taken_job_from_row` reads; all others are null or empty while a job is queued.
QUEUED_COLUMNS = (
    "id, run_id, type, seq, student, priority, requirement, attempt, attempt_limit, avoid_worker_id, avoid_until,"
    " queued_at, attempts, info"
)


def taken_job_from_row(row: Sequence[Any], worker_id: str, now: datetime, lease_expires_at: datetime) -> Job:
    """A row of a queued job that begins with QUEUED_COLUMNS, as the job is once a worker has taken it."""
    (id_, run_id, job_type, seq, student, priority, requirement, attempt, attempt_limit) = row[:9]
    (avoid_worker_id, avoid_until, queued_at, attempts, info) = row[9:14]
    return Job(
        id=id_,
        run_id=run_id,
        type=_JOB_TYPES[job_type],
        seq=seq,
        student=None if student is None else records.from_text(student),
        state=JobState.RUNNING,
        priority=priority,
        requirement=requirement,
        attempt=attempt + 1,
        attempt_limit=attempt_limit,
        worker_id=worker_id,
        lease_expires_at=lease_expires_at,
        avoid_worker_id=avoid_worker_id,
        avoid_until=_time(avoid_until),
        queued_at=_time(queued_at),
        started_at=now,
        attempts=records.attempts_from_text(attempts),
        info=tuple(records.from_text(info)),
    )


def worker_from_row(row: sqlite3.Row) -> Worker:
    """A row of `workers`."""
    return Worker(
        id=row["id"],
        hostname=row["hostname"],
        slots=row["slots"],
        runtime=row["runtime"],
        version=row["version"],
        labels=records.from_text(row["labels"]),
        registered_at=records.from_millis(row["registered_at"]),
        last_seen=records.from_millis(row["last_seen"]),
        jobs_processed=row["jobs_processed"],
        draining=bool(row["draining"]),
        strikes=row["strikes"],
        quarantined_until=_time(row["quarantined_until"]),
        name=row["name"],
        asked_at=_time(row["asked_at"]),
        owner=row["owner"],
    )


def delivery_from_row(row: sqlite3.Row) -> Delivery:
    """A row of `deliveries`."""
    return Delivery(
        id=row["id"],
        run_id=row["run_id"],
        body=row["body"],
        attempts=row["attempts"],
        created_at=records.from_millis(row["created_at"]),
        due_at=_time(row["due_at"]),
        heard_at=_time(row["heard_at"]),
        fault=row["fault"],
    )


def optional_millis(time: datetime | None) -> int | None:
    """A time that may be missing, as a column."""
    return None if time is None else records.to_millis(time)


def _time(millis: int | None) -> datetime | None:
    return None if millis is None else records.from_millis(millis)
