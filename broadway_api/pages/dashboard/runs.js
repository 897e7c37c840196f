// All runs, newest first, as they change.

import { ask, currentSession, follow } from "./api.js";
import { percent, progress } from "./charts.js";
import { fill, h } from "./dom.js";
import { badge, between, count, duration, plural, RUN_STATES, time, words } from "./words.js";

const PAGE = 25;

export function runs(place, _id, query) {
  document.title = "Runs – Broadway";
  const table = h("div");
  const pager = h("div", { class: "pager" });
  const pages = [""]; // the `after` of each page on the way to this one
  let stop = () => {};

  const filters = () => ({ state: query.get("state"), course: query.get("course"), limit: PAGE });
  const show = (page) => {
    fill(table, page.grading_runs.length ? listed(page.grading_runs)
      : h("p", { class: "empty" }, query.size ? "No run is like that." : "There are no runs yet. A course makes one with POST /api/v1/grading_run."));
    fill(pager,
      h("button", { disabled: pages.length === 1, onclick: () => { pages.pop(); load(); } }, "Newer"),
      h("button", { disabled: !page.next, onclick: () => { pages.push(page.next); load(); } }, "Older"));
    pager.hidden = pages.length === 1 && !page.next;
  };
  const load = () => {
    stop();
    stop = () => {};
    const after = pages.at(-1);
    if (after) ask("overview/runs", { query: { ...filters(), after } }).then(show);
    else stop = follow("overview/runs/events", { runs: show }, filters());
  };
  const choose = (name) => (event) => {
    if (event.target.value) query.set(name, event.target.value);
    else query.delete(name);
    history.replaceState(null, "", `#/runs${query.size ? `?${query}` : ""}`);
    pages.length = 1;
    load();
  };

  fill(place, h("div", { class: "head" }, h("h1", {}, "Runs")),
    h("section", { class: "card", "aria-label": "Runs" },
      h("div", { class: "filters" },
        h("label", {}, "State", h("select", { onchange: choose("state") }, h("option", { value: "" }, "any"),
          RUN_STATES.map((state) => h("option", { value: state, selected: state === query.get("state") }, words(state))))),
        currentSession().role === "operator" && h("label", {}, "Course",
          h("input", { value: query.get("course") ?? "", placeholder: "any", size: 16, onchange: choose("course") }))),
      table, pager));
  load();
  return () => stop();
}

function listed(all) {
  return h("table", { class: "stacks" },
    h("thead", {}, h("tr", {}, ["Run", "Course", "State", "Progress", "Failed", "Created", "Took"].map((name) =>
      h("th", { scope: "col", class: name === "Failed" || name === "Took" ? "number" : null }, name)))),
    h("tbody", {}, all.map((run) => h("tr", {},
      h("td", { "data-label": "Run" }, h("a", { href: `#/run/${run.grading_run_id}`, class: "mono", "aria-label": `Run ${run.grading_run_id}` }, run.grading_run_id.slice(-8))),
      h("td", { "data-label": "Course" }, run.course),
      h("td", { "data-label": "State", class: "badged" }, badge(run.state)),
      h("td", { "data-label": "Progress" }, h("div", { class: "progress" }, progress(run.counts), h("span", { class: "quiet" }, percent(run.counts)))),
      h("td", { "data-label": "Failed", class: "number" }, run.counts.failed
        ? h("a", { href: `#/run/${run.grading_run_id}?states=failed`, "aria-label": plural(run.counts.failed, "failed job") }, count(run.counts.failed)) : "0"),
      h("td", { "data-label": "Created" }, time(run.created_at)),
      h("td", { "data-label": "Took", class: "number" }, run.started_at ? duration(between(run.started_at, run.finished_at)) : "–")))));
}
