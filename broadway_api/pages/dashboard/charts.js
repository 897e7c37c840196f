// Pictures of numbers: a bar of states, phases, a histogram. Each says in text what it shows.

import { fill, h } from "./dom.js";
import { count, hasEnded, JOB_STATES, plural, words } from "./words.js";

const ORDER = ["succeeded", "failed", "cancelled", "running", "queued", "waiting"];

/** How far a run is, in words. */
export function inWords(counts) {
  return `${count(endedOf(counts))} of ${plural(totalOf(counts), "job")} ended, ${count(counts.failed)} failed`;
}

const totalOf = (counts) => JOB_STATES.reduce((sum, state) => sum + counts[state], 0);
const endedOf = (counts) => counts.succeeded + counts.failed + counts.cancelled;

/** How far a run is, as one bar. */
export function progress(counts, { large = false } = {}) {
  const total = totalOf(counts);
  const text = inWords(counts);
  const bar = h("div", { class: large ? "bar large" : "bar", role: "progressbar", "aria-label": text,
    "aria-valuemin": 0, "aria-valuemax": total, "aria-valuenow": endedOf(counts), title: text });
  for (const state of ORDER.filter((one) => counts[one] > 0)) {
    const part = h("span", { class: state });
    part.style.flexGrow = String(Math.max(counts[state], total / 200)); // a single failure of ten thousand is seen
    bar.append(part);
  }
  return bar;
}

/** The same as a number. */
export function percent(counts) {
  const total = totalOf(counts);
  // Rounded down: whoever reads 100 % may rely on it.
  return total ? `${Math.floor((100 * endedOf(counts)) / total)} %` : "";
}

/** The three phases, and where the run is. */
export function phases(run) {
  const students = ["students", "post_processing", "finished"];
  const place = ["ready", "pre_processing", "students", "post_processing", "finished"].indexOf(run.state);
  const ends = studentsOf(run);
  const student = run.state === "students" ? "now"
    : place > 2 || (run.state === "failed" && run.post_processing_job && hasEnded(run.post_processing_job.state) && run.post_processing_job.state !== "cancelled") ? "done" : "";
  return h("ol", { class: "phases", "aria-label": "Phases" },
    phase("Pre-processing", run.pre_processing_job, run.state === "pre_processing"),
    h("li", { class: student, "aria-current": student === "now" ? "step" : null },
      h("strong", {}, "Students"), h("span", {}, students.includes(run.state) || hasEnded(run.state)
        ? `${count(endedOf(ends))} ended, ${count(ends.failed)} failed` : "not begun")),
    phase("Post-processing", run.post_processing_job, run.state === "post_processing"));
}

/** The counts of a run's jobs without its other two. */
function studentsOf(run) {
  const counts = { ...run.counts };
  for (const job of [run.pre_processing_job, run.post_processing_job]) if (job) counts[job.state] -= 1;
  return counts;
}

function phase(title, job, now) {
  if (!job) return h("li", { class: "none" }, h("strong", {}, title), h("span", {}, "none"));
  const kind = job.state === "failed" ? "broken" : job.state === "succeeded" ? "done" : now ? "now" : "";
  return h("li", { class: kind, "aria-current": now ? "step" : null }, h("strong", {}, title),
    h("a", { href: `#/job/${job.job_id}` }, words(job.state)));
}

/** How values spread; `said` puts a value in words. */
export function histogram(element, title, spread, said, unit = "student") {
  if (!spread) return fill(element, h("h2", {}, title), h("p", { class: "quiet" }, "Nothing has ended yet."));
  const most = Math.max(...spread.bars.map((bar) => bar.jobs));
  const width = 400 / spread.bars.length;
  const parts = spread.bars.map((bar, place) => h("rect", {
    x: place * width + 1, width: width - 2, y: 100 - (bar.jobs / most) * 98, height: (bar.jobs / most) * 98,
  }, h("title", {}, `${said(bar.from)} to ${said(bar.to)}: ${plural(bar.jobs, unit)}`)));
  const text = `${title}: median ${said(spread.median)}, highest ${said(spread.highest)}`;
  return fill(element, h("h2", {}, title),
    h("svg", { class: "histogram", viewBox: "0 0 400 101", preserveAspectRatio: "none", role: "img", "aria-label": text },
      parts, h("line", { x1: 0, x2: 400, y1: 100.5, y2: 100.5 })),
    h("p", { class: "ends" }, h("span", {}, said(spread.bars[0].from)), h("span", {}, `median ${said(spread.median)}`), h("span", {}, said(spread.highest))));
}
