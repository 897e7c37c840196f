"""The dashboard as people use it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.api.serving import Api, eventually, run_config
from tests.browser.conftest import Dashboard, log_in

HOSTILE = "</pre><img src=x onerror=alert(1)><script>alert(2)</script>"
#: What may not be on a page: control characters, and those that turn text around.
FORBIDDEN = {chr(code) for code in (*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))} - {
    "\n",
    "\t",
}

#: Plays a window that is put away, or taken up again.
HIDE = """() => { Object.defineProperty(document, "hidden", {configurable: true, value: HIDDEN});
document.dispatchEvent(new Event("visibilitychange")); }"""

ESCAPES = "\x1b[31;1mred\x1b[0m \x1b]0;title\x07\x1b[2Jend \u202etxt.exe\x00\x9b"


async def fail(api: Api, worker: str, said: str, **fields: Any) -> str:
    """Claim a job and report that its stage failed with these words; return its id."""
    job = await api.claim(worker)
    info = [{"exit_code": 1, "reason": "stage_failed", "stderr": said, "stdout": "began\n", "message": "exit code 1"}]
    answer = await api.report(worker, job, success=False, info=info, **fields)
    assert answer.status_code == 200
    return str(job["job_id"])


async def _not(condition: Callable[[], Awaitable[bool]]) -> bool:
    return not await condition()


async def fits(page: Page) -> bool:
    """Whether nothing has to be scrolled sideways to."""
    return bool(await page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


async def test_a_run_is_followed_from_the_list_to_its_end(dashboard: Dashboard, api: Api) -> None:
    async with dashboard.window() as page:
        await page.get_by_label("Token").fill("wrong")
        await page.get_by_role("button", name="Log in").click()
        await expect(page.get_by_role("alert")).to_have_text("This token opens nothing here.")
        await log_in(page)
        await expect(page.get_by_text("There are no runs yet")).to_be_visible()

        run = await api.create(run_config(3, post=True))  # it appears by itself
        await page.get_by_role("link", name=f"Run {run}").click()
        await page.get_by_role("button", name="Start").click()
        await expect(page.locator(".phases .now")).to_contain_text("0 ended")
        worker = await api.register(hostname="grader")
        await fail(api, worker, "ValueError: 1")
        await expect(page.locator(".phases .now")).to_contain_text("1 ended, 1 failed")
        await expect(page.locator(".causes")).to_contain_text("ValueError: 1")
        for _ in range(3):
            await api.report(worker, await api.claim(worker))
        await expect(page.locator(".head .badge")).to_have_text("finished")
        await expect(page.locator(".phases li").nth(1)).to_contain_text("3 ended, 1 failed")
        await page.get_by_role("button", name="Retry 1 failed").click()
        await expect(page.locator(".head .badge")).to_have_text("students")
        await page.get_by_role("button", name="Cancel").click()
        await page.get_by_role("button", name="Cancel the run").click()
        await expect(page.locator(".head .badge")).to_have_text("cancelled")
        assert (await api.run(run))["state"] == "cancelled"
        await page.get_by_role("button", name="Log out").click()
        await expect(page.get_by_label("Token")).to_be_visible()
        await page.reload()
        await expect(page.get_by_label("Token")).to_be_visible()


async def test_from_a_failing_student_to_why_in_two_clicks_whatever_was_printed(dashboard: Dashboard, api: Api) -> None:
    run = await api.start(run_config() | {"students": [{"NET_ID": HOSTILE}, {"NET_ID": "amy"}]})
    worker = await api.register(hostname="grader")
    await fail(api, worker, f"Error: {HOSTILE}\n{ESCAPES}\n")
    await api.report(worker, await api.claim(worker))
    async with dashboard.window() as page:
        await log_in(page)
        await page.get_by_role("link", name="1 failed job").click()
        await page.get_by_role("row").get_by_role("link").click()
        stderr = page.get_by_role("region", name="stderr of stage 1")
        await expect(stderr).to_have_text(f"Error: {HOSTILE}\nred end ⟨U+202E⟩txt.exe␀␦\n", use_inner_text=True)
        await expect(page.get_by_role("region", name="stdout of stage 1")).to_have_text("began")
        await expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE)
        await expect(page.locator("main img, main script, main pre *")).to_have_count(0)
        async with page.expect_download() as downloading:
            await page.locator("figure.stderr").get_by_role("button", name="Download").click()
        saved = await (await downloading.value).path()
        assert saved.read_text() == f"Error: {HOSTILE}\n{ESCAPES}\n"
        await expect(page.locator(f"main a[href='#/run/{run}']")).to_be_visible()


async def test_a_running_job_is_watched(dashboard: Dashboard, api: Api) -> None:
    await api.start(run_config(1))
    worker = await api.register(hostname="grader")
    job = await api.claim(worker)
    printed = {"stdout": "", "stderr": ""}

    async def prints(stream: str, text: str) -> None:
        start = len(printed[stream].encode())
        printed[stream] += text
        piece = {"stage": 0, "stream": stream, "start": start, "text": text}
        body = {"attempt": job["attempt"], "output": [piece], "stages": [{"stage": 0, "ended": False}]}
        answer = await api.call("POST", f"grading_job/{job['job_id']}/output", body, worker=worker)
        assert answer.json()["data"]["followed"]

    async with dashboard.window() as page:
        await log_in(page)
        await page.goto(f"{page.url.partition('#')[0]}#/job/{job['job_id']}")
        await expect(page.get_by_text("shown here while it runs")).to_be_visible()

        async def followed() -> bool:
            beat = await api.data(
                "POST", "heartbeat", {"running": [{"job_id": job["job_id"], "attempt": 1}]}, worker=worker
            )
            return bool(beat.get("followed"))

        await eventually(followed)
        stdout = page.get_by_role("region", name="stdout of stage 1")
        stderr = page.get_by_role("region", name="stderr of stage 1")
        await prints("stdout", "".join(f"line {number} é\n" for number in range(200)))
        await expect(stdout).to_contain_text("line 199 é")
        await prints("stderr", f"{HOSTILE}\x1b[31m")
        await expect(stderr).to_have_text(HOSTILE)
        await prints("stdout", "one more\n")
        await expect(stdout).to_contain_text("one more")
        at_its_end = "it => it.scrollHeight - it.scrollTop - it.clientHeight < 2"
        assert await stdout.evaluate(at_its_end)
        await stdout.evaluate("it => { it.scrollTop = 0; }")
        await prints("stdout", "and one\n")
        await expect(stdout).to_contain_text("and one")
        assert await stdout.evaluate("it => it.scrollTop") == 0  # who reads is left where they read
        await expect(page.locator(".stage .badge")).to_have_text("running")
        await page.evaluate(HIDE.replace("HIDDEN", "true"))  # a page that nobody sees hears nothing …
        await eventually(lambda: _not(followed))
        await page.evaluate(HIDE.replace("HIDDEN", "false"))  # … and when it is seen again nothing twice
        await eventually(followed)
        await prints("stdout", "end\n")
        await expect(stdout).to_have_text(printed["stdout"].strip())
        info = [{"exit_code": 1, "reason": "stage_failed", **printed}]
        await api.report(worker, job, success=False, info=info)
        await expect(page.locator(".head .badge").first).to_have_text("failed")
        await expect(page.locator(".stage .badge")).to_have_text("exit code 1")
        async with page.expect_download() as downloading:
            await page.get_by_role("button", name="Download stdout of stage 1").click()
        assert (await (await downloading.value).path()).read_text() == printed["stdout"]


async def test_what_no_grader_can_run_is_named(dashboard: Dashboard, api: Api) -> None:
    run = await api.start(run_config(2, require=["gpu"]))
    await api.register(hostname="grader")
    async with dashboard.window() as page:
        await log_in(page)
        await page.goto(f"{page.url.partition('#')[0]}#/run/{run}")
        said = page.get_by_role("region", name="Jobs that cannot run")
        await expect(said).to_contain_text("2 jobs: 0 of 1 workers have gpu.")
        await page.get_by_role("link", name="Queue").click()
        await expect(said).to_contain_text("default: 2 jobs: 0 of 1 workers have gpu.")
        await api.register(hostname="other", labels={"gpu": ""})
        await expect(said).to_have_count(0)


async def test_nothing_that_others_say_steers_the_page_or_breaks_it(dashboard: Dashboard, api: Api) -> None:
    name = f"{HOSTILE}{ESCAPES}{'W' * 5_000}".replace("\0", "")
    stage = {"image": "course/grade:1", "results": True}
    run = await api.start(run_config(1, student_pipeline=[stage]) | {"students": [{"NET_ID": name}]})
    worker = await api.register(hostname=HOSTILE, labels={"x": HOSTILE}, runtime=HOSTILE, version=HOSTILE)
    job = await api.claim(worker)
    results = {
        "score": 0,
        "max_score": 1,
        "output": name,
        "tests": [{"name": name, "score": 0, "max_score": 1, "output": name}],
    }
    said = {"stdout": "W" * 300_000, "stderr": name, "message": name, "runtime": HOSTILE, "image_digest": HOSTILE}
    info = [{"exit_code": 1, "reason": "stage_failed", "results": results, **said}]
    assert (await api.report(worker, job, success=False, info=info)).status_code == 200
    async with dashboard.window(width=390) as page:
        await log_in(page)
        for view, shown in ((f"run/{run}", ".causes"), (f"job/{job['job_id']}", ".tests"), ("fleet", ".workers h2")):
            await page.goto(f"{page.url.partition('#')[0]}#/{view}")
            await expect(page.locator(shown).first).to_contain_text("<script>")
            await expect(page.locator("main img, main script, main pre *")).to_have_count(0)
            assert not FORBIDDEN & set(await page.locator("main").inner_text()), view
            assert await fits(page), view


async def test_an_api_that_is_away_is_told_of_until_it_is_back(dashboard: Dashboard, api: Api) -> None:
    run = await api.start(run_config(1))
    async with dashboard.window() as page:
        await log_in(page)
        away = page.locator("#away")
        await page.context.set_offline(True)
        await page.goto(f"{page.url.partition('#')[0]}#/run/{run}")
        await expect(page.locator("main")).to_contain_text("cannot be reached")
        await expect(away).to_contain_text("You see how things were at")
        await page.context.set_offline(False)
        await expect(page.locator(".phases .now")).to_be_visible()  # by itself
        await expect(away).to_be_empty()
    assert all("ERR_INTERNET_DISCONNECTED" in fault for fault in dashboard.faults)
    dashboard.faults.clear()


async def test_ten_thousand_students_are_searched_sorted_and_paged(dashboard: Dashboard, api: Api) -> None:
    run = await api.start(run_config(10_000))
    worker = await api.register(hostname="grader")
    for said in ("ValueError: 1", "ValueError: 2", "KeyError: 'x'"):
        await fail(api, worker, said)
    async with dashboard.window(width=390, height=844, has_touch=True, is_mobile=True) as page:
        await log_in(page)
        assert await fits(page)
        await page.goto(f"{page.url.partition('#')[0]}#/run/{run}")
        pager = page.locator(".pager").get_by_role("status")
        await expect(pager).to_have_text("1–50 of 10,000 jobs")
        await page.get_by_role("button", name="Next").click()
        await expect(pager).to_have_text("51–100 of 10,000 jobs")
        assert await fits(page)
        await page.get_by_label("Search").fill("S999")
        await expect(pager).to_have_text("11 jobs")
        await page.get_by_label("Search").fill("")
        await page.get_by_role("button", name="Show all 2").click()
        await expect(pager).to_have_text("2 jobs")
        await page.get_by_label("Sort").select_option("ended last")
        await expect(page.locator("tbody a").first).to_have_text("s1")
        await page.locator("tbody a").first.click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("s1")
        assert await fits(page)


async def test_the_fleet_and_the_queue(dashboard: Dashboard, api: Api) -> None:
    await api.start(run_config(3))
    worker = await api.register(hostname="grader-7", slots=2)
    async with dashboard.window(width=390) as page:
        await log_in(page)
        await page.get_by_role("link", name="Queue").click()
        await expect(page.get_by_text("3 jobs waiting")).to_be_visible()
        job = await api.claim(worker)
        await expect(page.get_by_text("2 jobs waiting")).to_be_visible()
        assert await fits(page)
        await page.get_by_role("link", name="Fleet").click()
        await expect(page.get_by_role("link", name=job["job_id"][-8:])).to_be_visible()
        await page.get_by_role("button", name="Drain grader-7").click()
        await expect(page.locator(".workers .badge")).to_have_text("draining")
        await page.get_by_role("button", name="Resume grader-7").click()
        await expect(page.locator(".workers .badge")).to_have_text("alive")
        assert await fits(page)


async def test_a_course_sees_its_own_and_changes_nothing_that_it_may_not(dashboard: Dashboard, api: Api) -> None:
    await api.data("PUT", "courses/cs101", {})
    await api.create()
    own = await api.create(run_config(), params={"course": "cs101"})
    token = (await api.data("POST", "tokens", {"role": "query", "course": "cs101"}))["token"]
    async with dashboard.window() as page:
        await log_in(page, token)
        await expect(page.locator("tbody tr")).to_have_count(1)
        await expect(page.get_by_role("link", name="Fleet")).to_have_count(0)
        await page.get_by_role("link", name=f"Run {own}").click()
        await expect(page.locator(".head .badge")).to_have_text("ready")
        await expect(page.locator(".head .actions button")).to_have_count(0)


CONTRAST = """() => {
  const linear = (part) => part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4;
  const channel = (value) => linear(value / 255);
  const colour = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const found = colour(getComputedStyle(at).backgroundColor);
      if (found.length === 3 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.closest("svg, .visually-hidden, .skip, noscript")) continue;
    const both = [luminance(colour(getComputedStyle(element).color)), luminance(behind(element))];
    const [high, low] = both.sort((a, b) => b - a);
    if ((high + .05) / (low + .05) < 4.5) poor.push(`${element.className} ${element.textContent.trim().slice(0, 40)}`);
  }
  return poor;
}"""


UNNAMED = """() => {
  const poor = [];
  const note = (what, element) => poor.push(`${what}: ${element.outerHTML.slice(0, 80)}`);
  for (const cell of document.querySelectorAll("th:not([scope])")) note("no scope", cell);
  for (const it of document.querySelectorAll("input, select")) if (!it.labels.length) note("no label", it);
  for (const it of document.querySelectorAll("a, button, [role=region], [role=img]")) {
    if (!(it.getAttribute("aria-label") || it.textContent).trim()) note("no name", it);
  }
  if (document.querySelectorAll("h1").length !== 1) note("not one h1", document.body);
  const ids = [...document.querySelectorAll("[id]")].map((it) => it.id);
  if (new Set(ids).size !== ids.length) note("an id twice", document.body);
  return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_is_readable_in_both_schemes(dashboard: Dashboard, api: Api, scheme: Any) -> None:
    run = await api.start(run_config(4, post=True))
    worker = await api.register(hostname="grader")
    job = await fail(api, worker, "ValueError: 1")
    await api.report(worker, await api.claim(worker))
    await api.claim(worker)
    await api.start(run_config(2, require=["gpu"]))
    async with dashboard.window(color_scheme=scheme) as page:
        await log_in(page)
        for view, shown in (
            ("runs", "tbody a"),
            (f"run/{run}", ".causes"),
            (f"job/{job}", "pre"),
            ("fleet", ".workers h2"),
            ("queue", "tbody a"),
        ):
            await page.goto(f"{page.url.partition('#')[0]}#/{view}")
            await expect(page.locator(shown).first).to_be_visible()
            assert await page.evaluate(UNNAMED) == [], view
            assert await page.evaluate(CONTRAST) == [], view
        assert await page.evaluate("document.documentElement.dataset.theme") == scheme
        await page.get_by_role("button", name="Dark colours").click()
        other = "dark" if scheme == "light" else "light"
        await page.reload()  # the choice is kept
        await expect(page.get_by_role("button", name="Log out")).to_be_visible()
        assert await page.evaluate("document.documentElement.dataset.theme") == other


async def test_the_keyboard_alone_leads_from_log_in_to_a_log(dashboard: Dashboard, api: Api) -> None:
    await api.start(run_config(1))
    worker = await api.register(hostname="grader")
    await fail(api, worker, "ValueError: 1")

    async with dashboard.window() as page:

        async def tab_to(name: str) -> None:
            """Press Tab until what has the focus is called that; each stop on the way can be seen and has a name."""
            for _ in range(40):
                await page.keyboard.press("Tab")
                focused = await page.evaluate(
                    """() => { const it = document.activeElement; const style = getComputedStyle(it);
                    return {name: it.getAttribute("aria-label") || it.textContent || it.labels?.[0]?.textContent || "",
                            seen: style.outlineStyle !== "none" || it === document.body}; }"""
                )
                assert focused["seen"], focused
                if name in focused["name"]:
                    return
            pytest.fail(f"no way to {name}")

        await expect(page.get_by_label("Token")).to_be_focused()
        await page.keyboard.type("test-cluster-token")
        await page.keyboard.press("Enter")
        await expect(page.locator("tbody tr")).to_have_count(1)
        await tab_to("1 failed job")
        await page.keyboard.press("Enter")
        await expect(page.locator(".causes")).to_be_visible()
        await tab_to("See s0")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", level=1)).to_have_text("s0")
        await tab_to("stderr of stage 1")
        await expect(page.get_by_role("region", name="stderr of stage 1")).to_have_text("ValueError: 1")
