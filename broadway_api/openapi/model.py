"""The words in which an endpoint is described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Literal

from broadway_api.policy import Policy
from broadway_api.schemas import Schema


class Access(Enum):
    """What a caller must show."""

    PUBLIC = auto()  # nothing
    CLUSTER = auto()  # a token of a role that may do this
    WORKER = auto()  # that, and the id of a registered worker


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What descriptions depend on beside the code."""

    policy: Policy
    queue_empty_code: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """A query parameter or header. One whose schema is an array is written with commas between its items."""

    name: str
    description: str
    schema: Schema
    place: Literal["query", "header"] = "query"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What comes back when all went well: `data` within the envelope, something that is not JSON, or one of both."""

    description: str
    data: Schema | None = None
    media_type: str | None = None  # of what is not JSON; neither of the two: no body at all
    headers: Mapping[str, str] = field(default_factory=dict)  # name → description


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One method of one path.

    The refusals that follow from the rest (401 where a token is asked for, 400 where there is something to get wrong,
    408 and 413 for bodies, 503) are filled in by `document.py`. `links` are what to call next: the operation's id →
    its path parameters, each as a runtime expression such as `$response.body#/data/job_id`.
    """

    id: str
    summary: str
    description: str = ""
    access: Access = Access.CLUSTER
    parameters: tuple[Parameter, ...] = ()
    body: Schema | None = None
    needs_body: bool = True
    answers: Mapping[int, Answer]
    refusals: Mapping[int, str] = field(default_factory=dict)
    links: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


#: Path template → method in lower case → its description.
Paths = Mapping[str, Mapping[str, Operation]]
