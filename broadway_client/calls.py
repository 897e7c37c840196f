"""Every endpoint as a flow: what is sent, what comes back, and what makes it safe to send it again."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from broadway_client import models
from broadway_client.errors import InvalidRequest, NotFound, Unauthorized
from broadway_client.exchange import Flow, Request, Retries, T, exchange, segment

#: A run config: as an object, or as JSON text, whose lines the API's errors then name.
Config = Mapping[str, Any] | str | bytes

#: Most entries of a page.
PAGE = 1_000

_API = "api/v1/"
_WITHOUT_PREFIX = ("healthz", "readyz", "metrics")


def _call(
    retries: Retries,
    answer: type[T],
    method: str,
    path: str,
    *,
    body: Any = None,
    params: Mapping[str, object | None] | None = None,
    headers: Mapping[str, str] | None = None,
    repeatable: bool = True,
) -> Flow[T]:
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    request = Request(
        method=method,
        path=path if path in _WITHOUT_PREFIX else _API + path,
        answer=answer,
        repeatable=repeatable,
        params={name: str(value) for name, value in (params or {}).items() if value is not None},
        headers={**(headers or {}), **({"Content-Type": "application/json"} if content is not None else {})},
        content=content,
    )
    outcome = yield from exchange(request, retries)
    return outcome.answer


# --- runs ------------------------------------------------------------------------------------------------------------


def create_run(
    retries: Retries, config: Config, *, course: str | None, priority: int | None, idempotency_key: str | None
) -> Flow[models.RunCreated]:
    text = config if isinstance(config, str | bytes) else json.dumps(config)
    return _call(
        retries,
        models.RunCreated,
        "POST",
        "grading_run",
        body=text.encode() if isinstance(text, str) else text,
        params={"course": course, "priority": priority},
        headers={"Idempotency-Key": idempotency_key or str(uuid.uuid4())},
    )


def start_run(retries: Retries, run_id: str) -> Flow[models.RunMoved]:
    try:
        return (yield from _call(retries, models.RunMoved, "POST", f"grading_run/{segment(run_id)}"))
    except InvalidRequest as refusal:
        if not refusal.repeated:
            raise
        # "It was started before": by our own request, whose answer got lost, unless it still is not.
        status = yield from run(retries, run_id)
        if status.state == models.RunState.READY:
            raise
        return models.RunMoved(grading_run_id=run_id, state=status.state)


def cancel_run(retries: Retries, run_id: str) -> Flow[models.RunMoved]:
    return _call(retries, models.RunMoved, "POST", f"grading_run/{segment(run_id)}/cancel")


def retry_run(retries: Retries, run_id: str, students: Sequence[models.Student] | None) -> Flow[models.RunRetried]:
    body = None if students is None else {"students": [dict(student) for student in students]}
    try:
        return (yield from _call(retries, models.RunRetried, "POST", f"grading_run/{segment(run_id)}/retry", body=body))
    except InvalidRequest as refusal:
        if not refusal.repeated:
            raise
        # "It has not ended": our own request, whose answer got lost, has made it go on.
        status = yield from run(retries, run_id)
        if status.state.ended:
            raise
        return models.RunRetried(grading_run_id=run_id, jobs=None)


def run(retries: Retries, run_id: str) -> Flow[models.RunStatus]:
    return _call(retries, models.RunStatus, "GET", f"grading_run/{segment(run_id)}")


def job_page(retries: Retries, run_id: str, *, states: str, limit: int, after: str | None) -> Flow[models.JobPage]:
    params = {"jobs": states, "limit": limit, "after": after}
    return _call(retries, models.JobPage, "GET", f"grading_run/{segment(run_id)}", params=params)


def run_page(
    retries: Retries, *, state: str | None, course: str | None, limit: int, after: str | None
) -> Flow[models.RunPage]:
    params = {"state": state, "course": course, "limit": limit, "after": after}
    return _call(retries, models.RunPage, "GET", "grading_run", params=params)


def deliveries(retries: Retries, run_id: str) -> Flow[models.DeliveryList]:
    return _call(retries, models.DeliveryList, "GET", f"grading_run/{segment(run_id)}/deliveries")


# --- what people look at ---------------------------------------------------------------------------------------------


def failures(retries: Retries, run_id: str) -> Flow[models.Failures]:
    return _call(retries, models.Failures, "GET", f"grading_run/{segment(run_id)}/failures")


def statistics(retries: Retries, run_id: str) -> Flow[models.Statistics]:
    return _call(retries, models.Statistics, "GET", f"grading_run/{segment(run_id)}/statistics")


def find_jobs(
    retries: Retries,
    run_id: str,
    *,
    search: str | None,
    states: Sequence[str],
    reason: str | None,
    cause: str | None,
    sort: str,
    descending: bool,
    limit: int,
    offset: int,
) -> Flow[models.JobsFound]:
    params: dict[str, object | None] = {
        "search": search,
        "states": ",".join(states) or None,
        "reason": reason,
        "cause": " " if cause == "" else cause,  # one that is empty is no filter
        "sort": sort,
        "order": "descending" if descending else "ascending",
        "limit": limit,
        "offset": offset,
    }
    return _call(retries, models.JobsFound, "GET", f"grading_run/{segment(run_id)}/jobs", params=params)


def run_overview(
    retries: Retries, *, state: str | None, course: str | None, limit: int, after: str | None
) -> Flow[models.RunOverview]:
    params = {"state": state, "course": course, "limit": limit, "after": after}
    return _call(retries, models.RunOverview, "GET", "overview/runs", params=params)


def queue(retries: Retries) -> Flow[models.Queue]:
    return _call(retries, models.Queue, "GET", "overview/queue")


# --- jobs ------------------------------------------------------------------------------------------------------------


def job(retries: Retries, job_id: str) -> Flow[models.JobDetail]:
    return _call(retries, models.JobDetail, "GET", f"grading_job/{segment(job_id)}")


def job_log(retries: Retries, job_id: str, stage: int | None) -> Flow[models.JobLog]:
    return _call(retries, models.JobLog, "GET", f"grading_job/{segment(job_id)}/log", params={"stage": stage})


# --- the fleet -------------------------------------------------------------------------------------------------------


def workers(retries: Retries) -> Flow[models.WorkerList]:
    return _call(retries, models.WorkerList, "GET", "workers")


def steer_worker(retries: Retries, worker_id: str, verb: str) -> Flow[models.WorkerNamed]:
    try:
        return (yield from _call(retries, models.WorkerNamed, "POST", f"workers/{segment(worker_id)}/{verb}"))
    except Unauthorized as refusal:
        # The API tells workers that it does not know them by a 401, and others who name such a worker the same.
        if worker_id and worker_id in refusal.message:
            raise NotFound(404, f"there is no worker {worker_id}") from refusal
        raise


def health(retries: Retries) -> Flow[models.Health]:
    return _call(retries, models.Health, "GET", "healthz")


def readiness(retries: Retries) -> Flow[models.Health]:
    return _call(retries, models.Health, "GET", "readyz")


def metrics(retries: Retries) -> Flow[str]:
    return _call(retries, str, "GET", "metrics")


# --- courses and tokens ----------------------------------------------------------------------------------------------


def courses(retries: Retries) -> Flow[models.CourseList]:
    return _call(retries, models.CourseList, "GET", "courses")


def course(retries: Retries, course_id: str) -> Flow[models.Course]:
    return _call(retries, models.Course, "GET", f"courses/{segment(course_id)}")


def put_course(
    retries: Retries,
    course_id: str,
    *,
    weight: float | None,
    tokens: Sequence[str] | None,
    query_tokens: Sequence[str] | None,
) -> Flow[models.Course]:
    given = {"weight": weight, "tokens": tokens, "query_tokens": query_tokens}
    body = {
        name: list(value) if isinstance(value, tuple) else value for name, value in given.items() if value is not None
    }
    return _call(retries, models.Course, "PUT", f"courses/{segment(course_id)}", body=body)


def delete_course(retries: Retries, course_id: str) -> Flow[models.CourseNamed]:
    path = f"courses/{segment(course_id)}"
    return _gone(_call(retries, models.CourseNamed, "DELETE", path), models.CourseNamed(course=course_id))


def make_token(
    retries: Retries, role: str, *, course: str | None, label: str | None, expires_in: int | None
) -> Flow[models.TokenMade]:
    given = {"role": role, "course": course, "label": label, "expires_in": expires_in}
    body = {name: value for name, value in given.items() if value is not None}
    return _call(retries, models.TokenMade, "POST", "tokens", body=body, repeatable=False)


def tokens(retries: Retries) -> Flow[models.TokenList]:
    return _call(retries, models.TokenList, "GET", "tokens")


def revoke_token(retries: Retries, token_id: str) -> Flow[models.Token]:
    return _call(retries, models.Token, "DELETE", f"tokens/{segment(token_id)}")


# --- secrets ---------------------------------------------------------------------------------------------------------


def set_secret(retries: Retries, name: str, value: str, course: str | None) -> Flow[models.Secret]:
    path, params = f"secrets/{segment(name)}", {"course": course}
    return _call(retries, models.Secret, "PUT", path, body={"value": value}, params=params)


def secrets(retries: Retries, course: str | None) -> Flow[models.SecretList]:
    return _call(retries, models.SecretList, "GET", "secrets", params={"course": course})


def delete_secret(retries: Retries, name: str, course: str | None) -> Flow[models.SecretNamed]:
    path, params = f"secrets/{segment(name)}", {"course": course}
    return _gone(_call(retries, models.SecretNamed, "DELETE", path, params=params), models.SecretNamed(name=name))


def reseal_secrets(retries: Retries) -> Flow[models.SecretsResealed]:
    return _call(retries, models.SecretsResealed, "POST", "reseal_secrets")


def _gone(deletion: Flow[T], done: T) -> Flow[T]:
    """A deletion; what an earlier sending of it has deleted, its answer lost, is not missed."""
    try:
        return (yield from deletion)
    except NotFound as refusal:
        if not refusal.repeated:
            raise
        return done
