// What waits, and how long it has waited, by course.

import { follow } from "./api.js";
import { fill, h } from "./dom.js";
import { count, plural, time } from "./words.js";

export function queue(place) {
  document.title = "Queue – Broadway";
  const total = h("p", { class: "quiet" });
  const table = h("div");
  fill(place, h("div", { class: "head" }, h("h1", {}, "Queue")), h("section", { class: "card", "aria-label": "Queue by course" }, total, table));
  const stop = follow("overview/queue/events", "queue", ({ courses }) => {
    total.textContent = `${plural(courses.reduce((sum, one) => sum + one.depth, 0), "job")} waiting for a grader.`;
    const most = Math.max(1, ...courses.map((one) => one.depth));
    fill(table, courses.length > 0 && h("table", { class: "stacks" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Course"), h("th", { scope: "col", class: "number" }, "Waiting"), h("th", { scope: "col" }, "Share"), h("th", { scope: "col" }, "Oldest was queued"))),
      h("tbody", {}, courses.map((one) => h("tr", {},
        h("td", { "data-label": "Course" }, h("a", { href: `#/runs?course=${encodeURIComponent(one.course)}` }, one.course)),
        h("td", { "data-label": "Waiting", class: "number" }, count(one.depth)),
        h("td", { "data-label": "Share" }, share(one.depth / most)),
        h("td", { "data-label": "Oldest was queued" }, time(one.oldest_queued_at)))))));
  });
  return stop;
}

function share(part) {
  const filled = h("span", { class: "running" });
  const rest = h("span");
  filled.style.flexGrow = String(part);
  rest.style.flexGrow = String(1 - part);
  return h("div", { class: "bar", "aria-hidden": "true" }, filled, rest);
}
