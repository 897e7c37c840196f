// What waits, and how long it has waited, by course.

import { follow } from "./api.js";
import { fill, h } from "./dom.js";
import { count, plain, plural, time } from "./words.js";

export function queue(place) {
  document.title = "Queue – Broadway";
  const total = h("p", { class: "quiet" });
  const table = h("div");
  const stranded = h("div");
  fill(place, h("div", { class: "head" }, h("h1", {}, "Queue")), stranded, h("section", { class: "card", "aria-label": "Queue by course" }, total, table));
  return follow("overview/queue/events", { queue: ({ courses }) => {
    const depth = courses.reduce((sum, one) => sum + one.depth, 0);
    total.textContent = depth ? `${plural(depth, "job")} waiting for a grader.` : "Nothing waits.";
    fill(stranded, cannotRun(courses.flatMap((one) => one.stranded.map((some) => ({ ...some, course: one.course })))));
    const most = Math.max(1, ...courses.map((one) => one.depth));
    fill(table, courses.length > 0 && h("table", { class: "stacks" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Course"), h("th", { scope: "col", class: "number" }, "Waiting"), h("th", { scope: "col" }, "Share"), h("th", { scope: "col" }, "Oldest was queued"))),
      h("tbody", {}, courses.map((one) => h("tr", {},
        h("td", { "data-label": "Course" }, h("a", { href: `#/runs?course=${encodeURIComponent(one.course)}` }, one.course)),
        h("td", { "data-label": "Waiting", class: "number" }, count(one.depth)),
        h("td", { "data-label": "Share" }, share(one.depth / most)),
        h("td", { "data-label": "Oldest was queued" }, time(one.oldest_queued_at)))))));
  } });
}

/** Jobs that wait for what no grader has; nothing without any. */
export function cannotRun(stranded) {
  if (!stranded.length) return null;
  return h("section", { class: "card stranded", "aria-label": "Jobs that cannot run" },
    h("h2", {}, `${plural(stranded.reduce((sum, one) => sum + one.jobs, 0), "job")} cannot run`),
    h("ul", {}, stranded.map((one) => h("li", {}, one.course && [h("strong", {}, one.course), ": "],
      `${plural(one.jobs, "job")}: ${plain(one.message)}.`))));
}

function share(part) {
  const filled = h("span", { class: "running" });
  const rest = h("span");
  filled.style.flexGrow = String(part);
  rest.style.flexGrow = String(1 - part);
  return h("div", { class: "bar", "aria-hidden": "true" }, filled, rest);
}
