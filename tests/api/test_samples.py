"""The API takes and gives exactly the bodies of `tests/samples/`, which the other sides' tests read too."""

from __future__ import annotations

from typing import Any

from tests.api.likeness import assert_like
from tests.api.serving import TOKEN, Api, sample


class Scene:
    """The story that the samples tell, on a real API."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.worker = ""
        self.run_id = ""

    async def ask(self, method: str, path: str, body: Any = None, *, worker: bool = False, **named: Any) -> Any:
        answer = await self.api.call(method, path, body, worker=self.worker if worker else None, **named)
        return answer.json()

    async def begin(self) -> None:
        answer = await self.ask("POST", "worker_register", sample("register_request"))
        assert_like(sample("register_answer"), answer)
        self.worker = answer["data"]["worker_id"]
        answer = await self.ask("POST", "grading_run", sample("run_config"))
        assert_like(sample("create_run_answer"), answer)
        self.run_id = answer["data"]["grading_run_id"]

    async def claim(self, expected: str, **params: Any) -> Any:
        answer = await self.ask("GET", "grading_job", worker=True, params=params or None)
        wanted = sample(expected)
        jobs = answer["data"].get("jobs", [answer["data"]])
        assert_like(self.with_ids(wanted, *jobs), answer)
        return answer["data"]

    def with_ids(self, wanted: Any, *jobs: Any) -> Any:
        """A sample whose jobs have the ids of this run, and theirs, in their environments."""
        for job, like in zip(jobs, wanted["data"].get("jobs", [wanted["data"]]), strict=True):
            for stage in like["stages"]:
                stage["env"] |= {"GRADING_RUN_ID": self.run_id, "GRADING_JOB_ID": job["job_id"]}
        return wanted

    async def report(self, job: dict[str, Any], body: str, answer: str, **changes: Any) -> None:
        got = await self.ask("POST", f"grading_job/{job['job_id']}", sample(body) | changes, worker=True)
        assert_like(sample(answer), got)


async def test_the_story_of_the_samples(api: Api) -> None:
    scene = Scene(api)
    await scene.begin()
    answer = await api.call("GET", "grading_job", worker=scene.worker)
    assert answer.status_code == 498
    assert answer.json() == sample("queue_empty_answer")
    assert_like(sample("start_run_answer"), await scene.ask("POST", f"grading_run/{scene.run_id}"))
    await scene.report(await scene.claim("claim_answer_pre_processing"), "result_request", "result_answer")

    first, second = (await scene.claim("claim_answer_slots", slots=2))["jobs"]
    beat = sample("heartbeat_request")
    beat["running"][0]["job_id"], beat["running"][1] = first["job_id"], {"job_id": second["job_id"], "attempt": 9}
    assert_like(sample("heartbeat_answer"), await scene.ask("POST", "heartbeat", beat, worker=True))
    await scene.report(second, "result_request_infrastructure", "result_answer_infrastructure")
    await scene.report(first, "result_request", "result_answer")
    assert_like(sample("job_log_answer"), await scene.ask("GET", f"grading_job/{first['job_id']}/log"))

    again = (await scene.ask("GET", "grading_job", worker=True))["data"]
    assert (again["job_id"], again["attempt"]) == (second["job_id"], 2)
    failed = sample("result_answer") | {"data": {"job_id": "", "state": "failed"}}
    got = await scene.ask(
        "POST", f"grading_job/{second['job_id']}", sample("result_request_failed") | {"attempt": 2}, worker=True
    )
    assert_like(failed, got)
    shown = await scene.ask("GET", f"grading_job/{second['job_id']}")
    assert_like(sample("job_answer"), shown)
    assert shown["data"]["attempts"][0]["reason"] == "image_unavailable"
    shown = await scene.ask("GET", f"grading_job/{first['job_id']}")
    assert_like(sample("job_answer_results"), shown)

    status = await scene.ask("GET", f"grading_run/{scene.run_id}")
    assert_like(sample("run_status_answer"), status)
    pages = sample("run_status_jobs_answer")
    pages["data"]["jobs"][2]["attempt"] = 2
    assert_like(pages, await scene.ask("GET", f"grading_run/{scene.run_id}", params={"jobs": "all", "limit": 3}))
    assert_like(sample("run_list_answer"), await scene.ask("GET", "grading_run"))
    await scene.claim("claim_answer_post_processing")


async def test_a_student_job_alone(api: Api) -> None:
    scene = Scene(api)
    await scene.begin()
    await scene.ask("POST", f"grading_run/{scene.run_id}")
    await scene.report(await scene.claim("claim_answer_pre_processing"), "result_request", "result_answer")
    job = await scene.claim("claim_answer")
    listed = (await scene.ask("GET", "workers"))["data"]["workers"]
    assert_like(sample("workers_answer")["data"]["workers"], listed)
    assert_like(sample("deregister_answer"), await scene.ask("DELETE", f"worker/{scene.worker}"))
    assert listed[0]["running"] == [job["job_id"]]


async def test_results_that_bring_the_next_jobs(api: Api) -> None:
    scene = Scene(api)
    await scene.begin()
    await scene.ask("POST", f"grading_run/{scene.run_id}")
    await scene.report(await scene.claim("claim_answer_pre_processing"), "result_request", "result_answer")
    first, next_one = await scene.claim("claim_answer"), {"slots": 1}
    path = f"grading_job/{first['job_id']}"
    got = await scene.ask("POST", path, sample("result_request"), worker=True, params=next_one)
    (second,) = got["data"]["jobs"]
    assert_like(scene.with_ids(sample("result_answer_next"), second), got)

    sent, wanted = sample("results_request"), sample("results_answer")
    sent["results"][0]["job_id"], sent["results"][1]["job_id"] = first["job_id"], second["job_id"]
    lost = wanted["data"]["results"][1]
    for placeholder, id_ in (("697dd0a80a1b2c3d4e5f6099", scene.worker), (lost["job_id"], second["job_id"])):
        lost["message"] = lost["message"].replace(placeholder, id_)
    got = await scene.ask("POST", "grading_job", sent, worker=True, params=next_one)
    assert_like(wanted, got)
    assert [result["job_id"] for result in got["data"]["results"]] == [first["job_id"], second["job_id"]]


async def test_a_wrapped_result_of_a_classic_grader(api: Api) -> None:
    scene = Scene(api)
    await scene.begin()
    run_id = await api.start()
    job = await api.claim(scene.worker)
    got = await scene.ask("POST", f"grading_job/{job['job_id']}", sample("result_request_wrapped"), worker=True)
    assert got["data"]["state"] == "failed"
    assert (await api.run(run_id))["reasons"] == {"stage_failed": 1}
    log = await api.data("GET", f"grading_job/{job['job_id']}/log")
    assert log["stages"] == [{"stage": 0, "stdout": "1 test failed\n", "stderr": ""}]


async def test_health(api: Api) -> None:
    answer = sample("healthz_answer")
    assert_like(answer, (await api.http.get("/healthz", headers={"Authorization": TOKEN})).json())
    del answer["data"]["loop_lag_seconds"]  # for operators only
    assert (await api.http.get("/healthz")).json() == answer


async def test_faults_of_bodies(api: Api) -> None:
    config = sample("run_config")
    config["student_pipeline"][0]["image"] = 7
    assert (await api.call("POST", "grading_run", config)).json() == sample("fault_answer")
    not_json = b'{\n"students": ,\n}'
    assert (await api.call("POST", "grading_run", not_json)).json() == sample("not_json_answer")
