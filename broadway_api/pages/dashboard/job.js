// One job: why it ended as it did, its stages with what they printed, its results.

import { ask, currentSession } from "./api.js";
import { fill, h, notify, refused } from "./dom.js";
import { liveOutput } from "./live.js";
import { output } from "./output.js";
import { badge, between, bytes, count, duration, hasEnded, jobName, number, plain, plural, reason, score, time } from "./words.js";

/** Milliseconds between two looks at where a waiting job stands. */
const LOOK_EVERY = 5000;

/** A message that only repeats the exit code beside it. */
const SAYS_LITTLE = /^(the stage )?(exited with|exit code|exit status) (code )?\d+\.?$/i;

export function job(place, id) {
  document.title = `Job ${id.slice(-8)} – Broadway`;
  const head = h("div");
  const because = h("div");
  const stageList = h("div", { class: "stages" });
  const end = h("div", { class: "view" });
  let stop = null; // of what it prints now
  let timer = 0;
  let gone = false;
  let asked = 0;
  let shown = "";

  const load = async () => {
    clearTimeout(timer);
    const mine = ++asked;
    let now;
    let log = null;
    try {
      now = await ask(`grading_job/${id}`);
      if (hasEnded(now.state)) log = await ask(`grading_job/${id}/log`);
    } catch (error) {
      if (!gone) fill(place, refused(error));
      return;
    }
    if (gone || mine !== asked) return; // it was asked again meanwhile
    if (!place.contains(head)) {
      fill(place, head, because, h("section", { class: "card", "aria-label": "Stages" }, h("h2", {}, "Stages"), stageList), end);
    }
    document.title = `${jobName(now)} – Broadway`;
    fill(head, heading(now, load));
    fill(because, now.reason && now.reason !== "cancelled" && why(now));
    fill(end, now.results && results(now.results), h("section", { class: "card", "aria-label": "About" }, h("h2", {}, "About"), facts(now)),
      now.attempts.length > 0 && earlier(now.attempts));
    const version = `${now.attempt} ${log !== null}`;
    if (log) {
      stop?.();
      stop = null;
      if (version !== shown) fill(stageList, stages(now, log));
    } else {
      if (!stop) {
        fill(stageList, h("p", { class: "quiet" }, "What it prints is shown here while it runs."));
        stop = liveOutput(stageList, id, now.pipeline, load);
      }
      if (now.state !== "running") timer = setTimeout(load, LOOK_EVERY);
    }
    shown = version;
  };
  load();
  return () => { gone = true; clearTimeout(timer); stop?.(); };
}

function heading(now, again) {
  const name = jobName(now);
  return [h("p", { class: "crumbs" }, h("a", { href: "#/runs" }, "Runs"), " / ",
    h("a", { href: `#/run/${now.grading_run_id}` }, "Run ", h("span", { class: "mono" }, now.grading_run_id.slice(-8))), " / ", name),
  h("div", { class: "head" }, h("h1", {}, name), badge(now.state),
    now.score !== null && h("strong", { class: "number" }, score(now.score, now.max_score)), actions(now, again))];
}

function why(now) {
  const failed = [...now.info].reverse().find((info) => info.reason || info.exit_code);
  const message = failed?.message && !SAYS_LITTLE.test(failed.message) ? plain(String(failed.message)) : "";
  return h("section", { class: "card why", "aria-label": "Why it failed" }, h("h2", {}, reason(now.reason)),
    now.said && h("p", { class: "said" }, h("code", {}, plain(now.said))),
    message && message !== now.said && h("p", {}, message));
}

function actions(now, again) {
  if (currentSession().role === "query" || !hasEnded(now.state) || now.type !== "student" || !Object.keys(now.student).length) return null;
  return h("div", { class: "actions" }, h("button", { onclick: async (event) => {
    const button = event.currentTarget;
    button.disabled = true;
    try {
      const { jobs } = await ask(`grading_run/${now.grading_run_id}/retry`, { method: "POST", body: { students: [now.student] } });
      notify(`${plural(jobs, "job")} will be tried again.`);
      await again();
    } finally {
      button.disabled = false;
    }
  } }, "Try again"));
}

function stages(now, log) {
  if (!now.info.length) return h("p", { class: "quiet" }, "No stage ran.");
  return now.info.map((info, place) => {
    const config = now.pipeline[place] ?? {};
    const printed = log.stages.find((one) => one.stage === place) ?? { stdout: "", stderr: "" };
    const broken = Boolean(info.reason || info.exit_code);
    const quiet = !broken && now.state === "failed"; // it is not why
    const command = (config.entry_point ?? []).join(" ");
    const name = `${jobName(now)}-${now.job_id.slice(-8)}`;
    const outputs = ["stderr", "stdout"].map((stream) =>
      output({ name, stage: place, stream, all: printed[stream], dropped: info.dropped_bytes?.[stream] }));
    return h("article", { class: broken ? "stage broken" : "stage", "aria-label": `Stage ${place + 1}` },
      h("div", { class: "head" }, h("h3", {}, `${place + 1}. ${config.image ?? "stage"}`), command && h("code", { class: "quiet" }, command),
        h("span", { class: `badge ${broken ? "bad" : "good"}` }, outcome(info))),
      h("dl", { class: "facts" }, stageFacts(info, config).map(([title, value]) => h("div", {}, h("dt", {}, title), h("dd", {}, value)))),
      quiet && (printed.stdout || printed.stderr) ? h("details", {}, h("summary", {}, "What it printed"), outputs) : outputs,
      !printed.stdout && !printed.stderr && h("p", { class: "quiet" }, config.logs === false ? "Its output is not kept." : "It printed nothing."));
  });
}

function outcome(info) {
  if (info.reason && info.reason !== "stage_failed") return reason(info.reason);
  return info.exit_code === null || info.exit_code === undefined ? "no exit code" : `exit code ${info.exit_code}`;
}

const text = (value) => plain(String(value));

function stageFacts(info, config) {
  const found = [];
  const add = (name, value) => { if (value !== null && value !== undefined && value !== "") found.push([name, value]); };
  add("Took", info.started_at && duration(between(info.started_at, info.finished_at)) + (config.timeout ? ` of ${duration(config.timeout)}` : ""));
  add("Memory", typeof info.memory_peak_bytes === "number" && bytes(info.memory_peak_bytes) + (config.memory ? ` of ${config.memory}` : ""));
  add("CPU", typeof info.cpu_seconds === "number" && duration(info.cpu_seconds));
  add("Runtime", info.runtime && text(info.runtime));
  add("Image", info.image_ignored ? "ignored by this runtime" : info.image_digest && h("code", {}, text(info.image_digest).slice(0, 19)));
  add("Said by the grader", info.message && !SAYS_LITTLE.test(info.message) && text(info.message));
  for (const error of info.results_errors ?? []) add("Results", `${text(error.path)}: ${text(error.message)}`);
  return found.filter(([, value]) => value);
}

function results(all) {
  return h("section", { class: "card", "aria-label": "Results" },
    h("div", { class: "head" }, h("h2", {}, "Results"), h("strong", { class: "number" }, score(all.score, all.max_score))),
    all.output && h("figure", { class: "output" }, h("pre", {}, plain(all.output))),
    h("div", { class: "tests" }, all.tests.map((test, place) => {
      const failed = test.status === "failed" || (!test.status && test.max_score !== null && test.score < test.max_score);
      const title = [h("span", {}, plain([test.number, test.name].filter(Boolean).join(" ") || `Test ${place + 1}`)),
        h("span", { class: `badge ${failed ? "bad" : "good"}` }, test.score === null || test.score === undefined ? failed ? "failed" : "passed" : score(test.score, test.max_score)),
        test.visibility && test.visibility !== "visible" && h("span", { class: "badge" }, test.visibility.replaceAll("_", " "))];
      return test.output ? h("details", { open: failed }, h("summary", {}, title), h("figure", { class: "output" }, h("pre", {}, plain(test.output))))
        : h("div", { class: "test" }, title);
    })),
    all.leaderboard?.length > 0 && h("dl", { class: "facts" }, all.leaderboard.map((one) => h("div", {}, h("dt", {}, plain(one.name)),
      h("dd", {}, typeof one.value === "number" ? number(one.value) : plain(one.value))))));
}

function facts(now) {
  const all = [
    ["Grader", now.worker_hostname], ["Attempt", now.attempt || ""], ["Queued", time(now.queued_at)], ["Started", time(now.started_at)],
    ["Ended", time(now.finished_at)], [now.finished_at ? "Took" : "Running for", duration(between(now.started_at, now.finished_at))],
    ["Jobs before it", now.position], ["Cannot run", now.stranded && plain(now.stranded)], ["Job", h("code", {}, now.job_id)],
    ...Object.entries(now.student ?? {}).map(([name, value]) => [name, plain(String(value))]),
  ];
  return [h("dl", { class: "facts" }, all.filter(([, value]) => value !== "" && value !== null && value !== undefined)
    .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))))];
}

function earlier(attempts) {
  return h("section", { class: "card", "aria-label": "Earlier attempts" }, h("h2", {}, "Earlier attempts"), h("table", { class: "stacks" },
    h("thead", {}, h("tr", {}, ["Attempt", "Grader", "Outcome", "Ended"].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, attempts.map((attempt) => h("tr", {}, h("td", { "data-label": "Attempt" }, count(attempt.attempt)),
      h("td", { "data-label": "Grader" }, attempt.hostname ?? "unknown"),
      h("td", { "data-label": "Outcome" }, attempt.reason ? reason(attempt.reason) : "handed back, or ended"),
      h("td", { "data-label": "Ended" }, time(attempt.finished_at)))))));
}
