// One run: where it is, how fast it goes, why jobs fail, and each student.

import { ask, currentSession, follow } from "./api.js";
import { histogram, inWords, phases, progress } from "./charts.js";
import { confirmed, fill, h, notify, refused } from "./dom.js";
import { cannotRun } from "./queue.js";
import { students } from "./students.js";
import { badge, between, count, duration, hasEnded, JOB_STATES, jobName, number, plain, plural, reason, time, words } from "./words.js";

/** Seconds between two looks at clusters, histograms and the table while the run goes on. */
const REFRESH = 3;

/** Seconds over which the rate is taken. */
const RATE_OVER = 30;

/** Milliseconds between two times that somebody who cannot see the page is told how far the run is. */
const TOLD_EVERY = 20_000;

export function run(place, id, query) {
  document.title = `Run ${id.slice(-8)} – Broadway`;
  const state = h("span");
  const actions = h("div", { class: "actions" });
  const picture = h("div");
  const numbers = h("div");
  const told = h("p", { class: "visually-hidden", role: "status" });
  const stranded = h("div");
  const causes = h("section", { class: "card", "aria-labelledby": "causes" });
  const durations = h("section", { class: "card" });
  const scores = h("section", { class: "card" });
  const table = students(id, query);
  const about = h("p", { class: "quiet crumbs" });
  const path = `grading_run/${id}`;
  const samples = []; // [seconds, ended jobs], for the rate
  let stop = () => {};
  let shown = 0;
  let timer = 0;
  let gone = false;
  let toldAt = 0;
  let toldState = "";

  fill(place,
    h("div", {}, h("p", { class: "crumbs" }, h("a", { href: "#/runs" }, "Runs"), " / ", h("span", { class: "mono" }, id)),
      h("div", { class: "head" }, h("h1", {}, "Run ", h("span", { class: "mono" }, id.slice(-8))), state, actions), about),
    h("section", { class: "card", "aria-label": "Progress" }, picture, numbers, told),
    stranded, causes, h("div", { class: "columns" }, durations, scores), table.element);

  const details = async () => {
    shown = Date.now();
    const [failures, statistics] = await Promise.all([ask(`${path}/failures`), ask(`${path}/statistics`), table.load()]);
    if (gone) return;
    fill(causes, clusters(failures, table));
    durations.hidden = !statistics.seconds;
    histogram(durations, "How long students took", statistics.seconds, duration);
    scores.hidden = !statistics.scores;
    histogram(scores, "Scores", statistics.scores, number);
  };
  const show = (now) => {
    fill(state, badge(now.state));
    fill(about, "Course ", h("strong", {}, now.course), " · created ", time(now.created_at),
      now.started_at && [hasEnded(now.state) ? " · took " : " · for ", duration(between(now.started_at, now.finished_at))]);
    fill(picture, phases(now));
    fill(numbers, liveNumbers(now, samples));
    fill(stranded, cannotRun(now.stranded));
    tell(now);
    // Whoever is about to press one goes on being so.
    const pressed = document.activeElement?.dataset?.act;
    fill(actions, buttons(now, path, listen));
    if (pressed) actions.querySelector(`[data-act="${pressed}"]`)?.focus();
    // At once if it was long ago, else when its time has come: a fast run must not be a storm of questions.
    clearTimeout(timer);
    timer = setTimeout(details, Math.max(0, shown + (shown ? REFRESH * 1000 : 0) - Date.now()));
  };
  const tell = (now) => {
    if (now.state === toldState && Date.now() - toldAt < TOLD_EVERY) return;
    [toldState, toldAt] = [now.state, Date.now()];
    told.textContent = `${words(now.state)}: ${inWords(now.counts)}`;
  };
  const listen = () => {
    stop();
    samples.length = 0;
    let ended = false;
    stop = follow(`${path}/events`, { run: (now) => {
      show(now);
      const left = now.counts.waiting + now.counts.queued + now.counts.running;
      if (hasEnded(now.state) && left === 0 && !ended) { ended = true; stop(); }
    } });
  };
  ask(path).then((now) => { if (!gone) { show(now); if (!hasEnded(now.state)) listen(); } },
    (error) => fill(place, refused(error)));
  return () => { gone = true; stop(); clearTimeout(timer); table.stop(); };
}

function liveNumbers(now, samples) {
  const ended = now.counts.succeeded + now.counts.failed + now.counts.cancelled;
  const at = Date.now() / 1000;
  samples.push([at, ended]);
  while (samples.length > 2 && at - samples[0][0] > RATE_OVER) samples.shift();
  const live = now.started_at && !hasEnded(now.state);
  const [since, before] = samples[0];
  const rate = at - since >= 3 ? (ended - before) / (at - since) : ended / Math.max(1, between(now.started_at, now.finished_at));
  const left = now.counts.waiting + now.counts.queued + now.counts.running;
  const eta = now.stranded.length ? null : rate > 0 ? left / rate : now.eta_seconds;
  const facts = JOB_STATES.filter((name) => now.counts[name]).map((name) => [[h("span", { class: `dot ${name}` }), words(name)], count(now.counts[name])]);
  if (now.started_at) facts.push([live ? "rate" : "on average", rate >= 1 ? `${rate.toFixed(1)} / s` : `${(rate * 60).toFixed(1)} / min`]);
  if (live && left) facts.push(["time left", eta === null ? "unknown yet" : `about ${duration(eta > 600 ? Math.round(eta / 60) * 60 : Math.max(1, Math.round(eta)))}`]);
  return [progress(now.counts, { large: true }),
    h("dl", { class: "numbers" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", { class: "number" }, value))))];
}

function buttons(now, path, again) {
  if (currentSession().role === "query") return [];
  const act = (word, done) => async (event) => {
    const button = event.currentTarget;
    if (word === "cancel" && !await confirmed("End this run now? What is running is stopped, and its results are lost.", "Cancel the run")) return;
    button.disabled = true;
    try {
      notify(done(await ask(`${path}/${word}`, { method: "POST" })));
      again();
    } finally {
      button.disabled = false;
    }
  };
  if (now.state === "ready") return [h("button", { class: "primary", "data-act": "start", onclick: async () => { await ask(path, { method: "POST" }); again(); } }, "Start")];
  if (!hasEnded(now.state)) return [h("button", { class: "danger", "data-act": "cancel", onclick: act("cancel", () => "The run was cancelled.") }, "Cancel")];
  const failed = now.counts.failed + now.counts.cancelled;
  return failed ? [h("button", { "data-act": "retry", onclick: act("retry", (data) => `${plural(data.jobs, "job")} will be tried again.`) }, `Retry ${count(failed)} failed`)] : [];
}

function clusters(failures, table) {
  const title = h("h2", { id: "causes" }, failures.failed ? `Why ${plural(failures.failed, "job")} failed` : "Failures");
  if (!failures.failed) return [title, h("p", { class: "quiet" }, "No job has failed.")];
  const listed = failures.causes.reduce((sum, cause) => sum + cause.jobs, 0);
  return [title, h("ol", { class: "causes" }, failures.causes.slice(0, 10).map((cause) => h("li", {},
    h("span", { class: "jobs", title: plural(cause.jobs, "job") }, count(cause.jobs)),
    h("div", { class: "said" }, h("strong", {}, reason(cause.reason)), cause.example.said && [": ", h("code", {}, plain(cause.example.said))], cause.jobs > 1 && cause.example.said !== cause.cause && h("span", { class: "quiet" }, " and the like")),
    h("div", { class: "links" },
      h("a", { href: `#/job/${cause.example.job_id}` }, `See ${jobName(cause.example)}`),
      h("button", { class: "plain link", onclick: () => table.choose({ reason: cause.reason, cause: cause.cause }) },
        cause.jobs === 1 ? "Show in the table" : `Show all ${count(cause.jobs)}`))))),
  failures.causes.length > 10 && h("p", { class: "quiet" }, `And ${plural(failures.causes.length - 10, "rarer cause")}.`),
  listed < failures.failed && h("p", { class: "quiet" }, `${plural(failures.failed - listed, "job")} failed for causes rarer still.`)];
}
