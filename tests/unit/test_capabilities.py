"""Who can run what: labels against requirements."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadway_api import capabilities
from broadway_api.domain import JobType, RunConfig, Stage
from broadway_api.policy import Policy
from broadway_api.validation import RunConfigValidator

CONFIG = RunConfig(
    student_pipeline=(Stage(image="a", require=("gpu",)), Stage(image="b", require=("arch=arm64", "gpu"))),
    pre_processing_pipeline=(Stage(image="c"),),
    require=("zone=a",),
)


def test_a_job_requires_what_its_run_and_all_its_stages_do() -> None:
    assert capabilities.requirement_of(CONFIG, JobType.STUDENT) == "arch=arm64,gpu,zone=a"
    assert capabilities.requirement_of(CONFIG, JobType.PRE_PROCESSING) == "zone=a"
    assert capabilities.requirement_of(RunConfig(student_pipeline=(Stage(image="a"),)), JobType.STUDENT) == ""


@given(st.lists(st.sampled_from(["gpu", "gpu=a100", "arch=arm64", "b"])))
def test_what_asks_for_the_same_has_the_same_text(labels: list[str]) -> None:
    text = capabilities.requirement(labels)
    assert text == capabilities.requirement([*reversed(labels), *labels])
    assert capabilities.labels_in(text) == sorted(set(labels))


@pytest.mark.parametrize(
    ("labels", "required", "fits"),
    [
        ({}, "", True),
        ({"gpu": ""}, "", True),
        ({}, "gpu", False),
        ({"gpu": ""}, "gpu", True),
        ({"gpu": "a100"}, "gpu", True),
        ({"gpu": "a100"}, "gpu=a100", True),
        ({"gpu": ""}, "gpu=a100", False),
        ({"gpu": "a100"}, "gpu=", False),
        ({"gpu": "", "arch": "arm64"}, "arch=arm64,gpu", True),
        ({"gpu": "", "arch": "amd64"}, "arch=arm64,gpu", False),
        ({"gpu,arch": ""}, "arch,gpu", False),
    ],
)
def test_a_worker_fits_if_it_has_every_label(labels: dict[str, str], required: str, fits: bool) -> None:
    assert capabilities.fits(labels, required) is fits


def test_what_is_missing_is_said_with_numbers() -> None:
    fleet: list[dict[str, str]] = [{}, {"gpu": ""}, {"arch": "arm64"}]
    assert capabilities.shortage("gpu", fleet) is None
    assert capabilities.shortage("tpu", fleet) == "0 of 3 workers have tpu"
    assert capabilities.shortage("arch=arm64,gpu", fleet) == "0 of 3 workers have arch=arm64 and gpu"
    assert capabilities.shortage("a,b,c", fleet) == "0 of 3 workers have a, b and c"
    assert capabilities.shortage("!protocol=course,tpu", fleet) == "0 of 3 workers have tpu"
    course_protocol = [capabilities.COURSE_PROTOCOL | {"gpu": ""}]
    assert str(capabilities.shortage("!protocol=course,gpu", course_protocol)).startswith(
        "0 of those that have gpu know"
    )
    assert capabilities.shortage("", []) == "no worker is connected"


@pytest.mark.parametrize("require", ["gpu", [1], ["a,b"], ["a b"], ["=x"], [""], ["é"], ["gpu"] * 9])
def test_what_is_no_requirement_is_refused_with_its_place(require: Any) -> None:
    stage = {"image": "a", "require": require}
    with pytest.raises(Exception, match=r"\$\.student_pipeline\[0\]\.require"):
        RunConfigValidator(Policy()).check({"students": [{}], "student_pipeline": [stage]})
