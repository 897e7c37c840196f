"""`broadway course`, `broadway token`, `broadway secret`: who may do what."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from broadway_client.cli.names import local_time, number
from broadway_client.cli.output import Output
from broadway_client.cli.session import Session, connected
from broadway_client.models import Course, Role

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_OF_COURSE = click.option("--course", metavar="COURSE", help="Whose; a course's own token needs none.")


@click.group()
def course() -> None:
    """Courses and their shares of the fleet. Operators only."""


@course.command(name="list")
@connected
def list_courses(session: Session) -> None:
    """List the courses."""
    with session.client() as client:
        _show_courses(session.output, client.courses())


@course.command(name="show")
@click.argument("course_", metavar="COURSE")
@connected
def show_course(session: Session, course_: str) -> None:
    """Show one course."""
    with session.client() as client:
        found = client.course(course_)
    if session.output.as_json:
        session.output.json(found.raw)
    else:
        _show_courses(session.output, [found])


@course.command(name="set")
@click.argument("course_", metavar="COURSE")
@click.option("--weight", type=float, help="Its share of the fleet against those of the other courses.")
@connected
def set_course(session: Session, course_: str, weight: float | None) -> None:
    """Make a course, or change it.

    \b
    broadway course set cs225 --weight 2
    broadway token create admin --course cs225
    """
    with session.client() as client:
        found = client.put_course(course_, weight=weight)
    _say(session.output, f"course {found.course} has weight {number(found.weight)}", found.raw)


@course.command(name="remove")
@click.argument("course_", metavar="COURSE")
@connected
def remove_course(session: Session, course_: str) -> None:
    """Take a course away, and revoke its tokens; its runs go on."""
    with session.client() as client:
        client.delete_course(course_)
    _say(session.output, f"course {course_} is gone, its tokens are revoked", {"course": course_})


def _show_courses(output: Output, found: tuple[Course, ...] | list[Course]) -> None:
    if output.as_json:
        output.json([one.raw for one in found])
        return
    rows = [
        (one.course, number(one.weight), one.tokens, one.query_tokens, "yes" if one.from_file else "") for one in found
    ]
    names = ("course", "weight", "tokens", "query tokens", "from file")
    output.table(names, rows, right=names[1:4])


# --- tokens ----------------------------------------------------------------------------------------------------------


@click.group()
def token() -> None:
    """Tokens of operators, workers and courses. Operators only."""


@token.command(name="list")
@connected
def list_tokens(session: Session) -> None:
    """List the tokens that were made, without their texts."""
    with session.client() as client:
        found = client.tokens()
    if session.output.as_json:
        session.output.json([one.raw for one in found])
        return
    rows = [
        (
            one.token_id,
            one.role.value,
            one.course or "",
            one.label,
            one.state,
            local_time(one.created_at),
            local_time(one.expires_at) or "never",
        )
        for one in found
    ]
    session.output.table(("token", "role", "course", "label", "state", "created", "expires"), rows)


@token.command(name="create")
@click.argument("role", type=click.Choice([role.value for role in Role]))
@click.option("--course", metavar="COURSE", help="Whose; for the roles admin and query.")
@click.option("--label", metavar="TEXT", help="What it is for, in a few words.")
@click.option("--expires-in", metavar="TIME", help="Such as 90d, 12h or 3600s; never, if left out.")
@connected
def create_token(session: Session, role: str, course: str | None, label: str | None, expires_in: str | None) -> None:
    """Make a token. Its text is printed this once, alone on stdout.

    \b
    broadway token create query --course cs225 --label "status page" --expires-in 90d
    """
    seconds = None if expires_in is None else _seconds(expires_in)
    with session.client() as client:
        made = client.make_token(role, course=course, label=label, expires_in=seconds)
    if session.output.as_json:
        session.output.json(made.raw)
        return
    session.output.aside(f"{made.role.value} token {made.token_id}; it is not shown again:")
    session.output.line(made.token)


@token.command(name="revoke")
@click.argument("token_id", metavar="TOKEN_ID")
@connected
def revoke_token(session: Session, token_id: str) -> None:
    """Revoke a token, by the id that `list` shows."""
    with session.client() as client:
        found = client.revoke_token(token_id)
    _say(session.output, f"token {found.token_id} is {found.state}", found.raw)


def _seconds(text: str) -> int:
    match = re.fullmatch(r"(\d{1,9})([smhdw]?)", text)
    if match is None or int(match[1]) == 0:
        raise click.BadParameter(f"{text!r} is no time: write 90d, 12h, 30m or 3600s", param_hint="--expires-in")
    return int(match[1]) * _UNITS[match[2] or "s"]


# --- secrets ---------------------------------------------------------------------------------------------------------


@click.group()
def secret() -> None:
    """Values that stages need and configs must not have."""


@secret.command(name="list")
@_OF_COURSE
@connected
def list_secrets(session: Session, course: str | None) -> None:
    """List the names of secrets; nothing tells a value."""
    with session.client() as client:
        found = client.secrets(course=course)
    if session.output.as_json:
        session.output.json([one.raw for one in found])
        return
    session.output.table(("name", "changed"), [(one.name, local_time(one.changed_at)) for one in found])


@secret.command(name="set")
@click.argument("name")
@click.option("--file", type=click.Path(path_type=Path), help="Take the value from this file, every byte of it.")
@_OF_COURSE
@connected
def set_secret(session: Session, name: str, file: Path | None, course: str | None) -> None:
    """Set a secret. The value is asked for, or read from stdin or a file: as an argument, `ps` would show it.

    \b
    broadway secret set DEPLOY_KEY --file ~/.ssh/deploy_key
    pass show gradebook | broadway secret set GRADEBOOK_TOKEN
    """
    value = _value(name, file)
    with session.client() as client:
        found = client.set_secret(name, value, course=course)
    _say(session.output, f"secret {found.name} is set", found.raw)


@secret.command(name="delete")
@click.argument("name")
@_OF_COURSE
@connected
def delete_secret(session: Session, name: str, course: str | None) -> None:
    """Delete a secret; jobs that name it then fail."""
    with session.client() as client:
        found = client.delete_secret(name, course=course)
    _say(session.output, f"secret {found.name} is deleted", found.raw or {"name": name})


def _value(name: str, file: Path | None) -> str:
    if file is not None:
        try:
            return file.read_bytes().decode()
        except OSError as error:
            raise click.UsageError(f"{file}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise click.UsageError(f"{file} is not text in UTF-8") from None
    if sys.stdin.isatty():
        return str(click.prompt(f"value of {name}", hide_input=True, err=True))
    return sys.stdin.read().removesuffix("\n")


def _say(output: Output, text: str, raw: object) -> None:
    if output.as_json:
        output.json(raw)
    else:
        output.line(text)
