"""Environments: who wins, what `$` means, and that nothing of one student reaches another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broadway_api import environment
from broadway_api.domain import Env, JobType, RunConfig, SecretRef, Stage, StageEnv
from broadway_api.environment import StageEnvironment, UnresolvedTemplate, merge, resolve, template_faults

RESERVED = {"GRADING_RUN_ID": "run", "GRADING_JOB_ID": "job"}


def config(run: Env | None = None, *stages: StageEnv, pre: Env | None = None, post: Env | None = None) -> RunConfig:
    return RunConfig(
        env=run or {},
        student_pipeline=tuple(Stage(image="i", env=env) for env in (stages or ({},))),
        pre_processing_pipeline=None if pre is None else (Stage(image="i", env=pre),),
        post_processing_pipeline=None if post is None else (Stage(image="i", env=post),),
    )


def faults(run_config: RunConfig, *roster: dict[str, Any]) -> dict[str, str]:
    return {fault.path: fault.message for fault in template_faults(run_config, list(roster) or [{}])}


def test_the_student_beats_the_stage_and_the_stage_beats_the_run() -> None:
    merged = merge({"A": "run", "B": "run", "C": "run"}, {"B": "stage", "C": "stage"}, {"C": "student"})
    assert merged == {"A": "run", "B": "stage", "C": "student"}


def test_an_empty_value_of_a_stage_hides_nothing() -> None:
    assert merge({"A": "run"}, {"A": "", "B": "", "C": ""}, {"B": "student"}) == {"A": "run", "B": "student", "C": ""}


def test_an_empty_value_of_a_student_hides_as_any_other() -> None:
    assert merge({"A": "run"}, {"A": "stage"}, {"A": ""}) == {"A": ""}


@pytest.mark.parametrize(
    ("value", "text"),
    [(1, "1"), (-0.5, "-0.5"), (1e22, "1e+22"), (True, "true"), (False, "false"), (10**30, "1" + "0" * 30), ("", "")],
)
def test_numbers_and_booleans_are_written_as_json_does(value: Any, text: str) -> None:
    assert merge({"A": value}, {}, None) == {"A": text}


def test_nothing_that_is_handed_in_is_changed_or_shared() -> None:
    run, stage, student = {"A": "run"}, {"B": "stage"}, {"C": "one"}
    merge(run, stage, student)["A"] = "changed"
    assert (run, stage, student) == ({"A": "run"}, {"B": "stage"}, {"C": "one"})
    assert "C" not in merge(run, stage, None)


@pytest.mark.parametrize(
    ("merged", "name", "value"),
    [
        ({"NETID": "$NET_ID", "NET_ID": "ada"}, "NETID", "ada"),
        ({"A": "$B", "B": "$C", "C": "end"}, "A", "end"),
        ({"A": "$B", "B": "$$C"}, "A", "$C"),
        ({"A": "$$"}, "A", "$"),
        ({"A": "$$$B"}, "A", "$$B"),
        ({"A": "cost: $5"}, "A", "cost: $5"),
        ({"A": "$GRADING_JOB_ID"}, "A", "job"),
        ({"GRADING_RUN_ID": "forged"}, "GRADING_RUN_ID", "run"),
        ({"GRADING_RUN_ID": "$NOWHERE"}, "GRADING_RUN_ID", "run"),
    ],
)
def test_templates(merged: dict[str, str], name: str, value: str) -> None:
    assert resolve(merged, RESERVED)[name] == value


def test_a_reserved_value_is_no_template() -> None:
    assert resolve({"A": "$GRADING_JOB_ID"}, {"GRADING_JOB_ID": "$A"})["A"] == "$A"


@pytest.mark.parametrize("value", ["$", "$1", "$A-B", "$A B", "$NET_ID.txt", "$\u00c4", "${NET_ID}", "$NOWHERE", "$A"])
def test_a_template_that_leads_nowhere_is_refused(value: str) -> None:
    with pytest.raises(UnresolvedTemplate) as caught:
        resolve({"A": value, "NET_ID": "ada"}, RESERVED)
    assert caught.value.variable == "A"


def test_a_circle_is_shown() -> None:
    with pytest.raises(UnresolvedTemplate, match=r"A → B → C → B"):
        resolve({"A": "$B", "B": "$C", "C": "$B"}, RESERVED)


def test_a_long_chain_takes_time_linear_in_its_length() -> None:
    """20,000 links; looked at pair by pair they would be 10¹² comparisons, hours within the timeout."""
    length = 20_000
    chain = {f"V{link}": f"$V{link + 1}" for link in range(length)} | {f"V{length}": "end"}
    assert set(resolve(chain, {}).values()) == {"end"}
    assert faults(config(chain)) == {}


def test_a_fault_is_told_where_the_value_was_written() -> None:
    run_config = config({"R": "$X1"}, {}, {"S": "$X2", "T": ""}, pre={"P": "$X3"})
    found = faults(run_config, {"OK": "fine"}, {"Q": "$X4"})
    assert set(found) == {
        "$.env.R",
        "$.student_pipeline[1].env.S",
        "$.pre_processing_pipeline[0].env.P",
        "$.students[1].Q",
    }
    assert "$X3 names no variable" in found["$.pre_processing_pipeline[0].env.P"]


def test_a_run_wide_template_may_need_a_students_variable_only_in_student_jobs() -> None:
    assert faults(config({"WHO": "$NET_ID"}), {"NET_ID": "ada"}) == {}
    found = faults(config({"WHO": "$NET_ID"}, post={}), {"NET_ID": "ada"})
    assert "in post_processing_pipeline[0]" in found["$.env.WHO"]


def test_one_student_who_lacks_a_name_is_found_among_many() -> None:
    roster: list[dict[str, Any]] = [{"NET_ID": f"student{number}"} for number in range(2_000)]
    roster[1_234] = {"NETID": "typo"}
    found = faults(config({}, {"WHO": "$NET_ID"}), *roster)
    assert set(found) == {"$.student_pipeline[0].env.WHO"}


names = st.sampled_from(["A", "B", "C", "D", "GRADING_RUN_ID"])
values = (
    st.sampled_from(["", "$", "$$", "$$A", "x", "$1", "$ A"]) | names.map("${}".format) | st.integers() | st.booleans()
)
envs: st.SearchStrategy[dict[str, Any]] = st.dictionaries(names, values)


@given(run=envs, stages=st.lists(envs, min_size=1, max_size=3), pre=st.none() | envs, roster=st.lists(envs, min_size=1))
def test_what_was_accepted_is_always_resolved(
    run: Env, stages: list[Env], pre: Env | None, roster: list[dict[str, Any]]
) -> None:
    run_config = config(run, *stages, pre=pre)
    accepted = not list(template_faults(run_config, list(roster)))
    jobs: list[tuple[JobType, Env | None]] = [(JobType.PRE_PROCESSING, None)]
    jobs += [(JobType.STUDENT, entry) for entry in roster]
    merged = [
        merge(run_config.env, stage.env, student) for kind, student in jobs for stage in run_config.pipeline(kind)
    ]
    if not accepted:  # nothing is refused without a reason
        with pytest.raises(UnresolvedTemplate):
            [resolve(variables, RESERVED) for variables in merged]
        return
    for resolved in [resolve(variables, RESERVED) for variables in merged]:
        assert all(isinstance(value, str) for value in resolved.values())
        assert (resolved["GRADING_RUN_ID"], resolved["GRADING_JOB_ID"]) == ("run", "job")


@given(run=envs, stage=envs, roster=st.lists(envs, min_size=2), data=st.data())
def test_no_environment_depends_on_another_student(
    run: Env, stage: Env, roster: list[dict[str, Any]], data: st.DataObject
) -> None:
    secret = {f"SECRET_{index}": f"secret-{index}" for index in range(len(roster))}
    marked = [entry | {"OWN": secret[f"SECRET_{index}"]} for index, entry in enumerate(roster)]
    run_config = config(run, stage)
    if list(template_faults(run_config, list(marked))):
        return
    index = data.draw(st.integers(0, len(roster) - 1))
    merged = [merge(run_config.env, stage, student) for student in marked]  # all of them, in turn
    resolved = resolve(merged[index], RESERVED)
    alone = resolve(merge(run_config.env, stage, marked[index]), RESERVED)
    assert resolved == alone
    others = set(secret.values()) - {f"secret-{index}"}
    assert not others & set(resolved.values())


stage_envs: st.SearchStrategy[dict[str, Any]] = st.dictionaries(names, values | st.just(SecretRef("key")))


@given(run=envs, stage=stage_envs, roster=st.lists(st.none() | envs, min_size=1))
@example(run={"A": "$B", "B": "x"}, stage={}, roster=[{"A": "own"}, {"B": "own"}, {}])
@example(run={"B": "x"}, stage={"A": "", "C": "y"}, roster=[{"D": 1, "A": "own"}, {"D": 1}, None])
def test_what_is_worked_out_once_for_all_students_gives_each_his_own(
    run: Env, stage: StageEnv, roster: list[Env | None]
) -> None:
    shared = StageEnvironment(run, stage)
    for student in roster:
        expected, found = (
            _or_problem(of)
            for of in (
                lambda: resolve(merge(run, stage, student), RESERVED, {"key": "a secret"}),  # noqa: B023
                lambda: shared.of(student, RESERVED, {"key": "a secret"}),  # noqa: B023
            )
        )
        assert found == expected
        if isinstance(found, dict):
            assert list(found) == list(expected)  # its order reaches the wire
            found |= dict.fromkeys(found, "of the one before")


def _or_problem(of: Callable[[], dict[str, str]]) -> dict[str, str] | str:
    try:
        return of()
    except UnresolvedTemplate as error:
        return str(error)


@given(st.text())
def test_an_escaped_value_is_taken_literally(text: str) -> None:
    assert resolve({"A": environment.escape(text)}, {})["A"] == text


KEY = SecretRef("key")


@pytest.mark.parametrize("value", ["plain", "$A", "$$A", "", "two\nlines"])
def test_a_secret_is_taken_as_it_is(value: str) -> None:
    assert resolve(merge({"A": "a"}, {"S": KEY}, None), RESERVED, {"key": value})["S"] == value


def test_a_secret_has_the_precedence_of_its_stage() -> None:
    assert resolve(merge({"S": "run"}, {"S": KEY}, {}), {}, {"key": "secret"}) == {"S": "secret"}
    assert resolve(merge({"S": "run"}, {"S": KEY}, {"S": "student"}), {}, {"key": "secret"}) == {"S": "student"}


def test_no_template_takes_a_secret_wherever_it_was_written() -> None:
    found = faults(config({"R": "$S"}, {"S": KEY, "T": "$S"}), {"NAME": "$S"}, {"NAME": "$R"})
    assert set(found) == {"$.env.R", "$.student_pipeline[0].env.T", "$.students[0].NAME", "$.students[1].NAME"}
    assert all("secret" in message for message in found.values())
