// The jobs of a run as a table. The API searches, sorts and counts, so ten thousand rows cost no more than fifty.

import { ask } from "./api.js";
import { fill, h } from "./dom.js";
import { badge, between, count, duration, jobName, JOB_STATES, plain, plural, reason, score, words } from "./words.js";

const PAGE = 50;
const COLUMNS = [
  ["roster", "Student"], ["state", "State"], [null, "Why"], ["score", "Score", "number"], ["duration", "Took", "number"],
  ["attempt", "Attempt", "number"],
];

/** The table of a run: an element, and how to load it again, choose what it shows, and stop it. */
export function students(run, query) {
  const wanted = {
    search: query.get("search") ?? "", states: query.get("states") ?? "", reason: query.get("reason") ?? "",
    cause: query.get("cause"), sort: query.get("sort") ?? "roster", order: query.get("order") ?? "ascending",
    offset: Number(query.get("offset") ?? 0) || 0,
  };
  const table = h("div", { class: "scroller" });
  const pager = h("div", { class: "pager" });
  const chosen = h("div", { class: "filters" });
  const head = h("tr");
  const body = h("tbody");
  fill(table, h("table", { class: "stacks" }, h("thead", {}, head), body));
  let typing = 0;
  let asked = 0;

  const search = h("input", { type: "search", value: wanted.search, placeholder: "Name, or part of it",
    oninput: () => { clearTimeout(typing); typing = setTimeout(() => change({ search: search.value }), 250); } });
  const states = h("select", { onchange: () => change({ states: states.value }) },
    h("option", { value: "" }, "any"), h("option", { value: "waiting,queued,running" }, "not ended"),
    JOB_STATES.map((state) => h("option", { value: state }, words(state))));
  const sort = h("select", { onchange: () => { const [by, order] = sort.value.split(" "); change({ sort: by, order }); } },
    [["roster ascending", "roster"], ["state ascending", "state"], ["score ascending", "lowest score"],
      ["score descending", "highest score"], ["duration descending", "longest"], ["finished descending", "ended last"],
      ["attempt descending", "most attempts"]].map(([value, text]) => h("option", { value }, text)));

  const element = h("section", { class: "card", "aria-labelledby": "students" },
    h("h2", { id: "students", tabindex: "-1" }, "Students"),
    h("div", { class: "filters" }, h("label", {}, "Search", search), h("label", {}, "State", states), h("label", {}, "Sort", sort)),
    chosen, table, pager);

  const load = async () => {
    const mine = ++asked;
    states.value = wanted.states;
    sort.value = `${wanted.sort} ${wanted.order}`;
    const found = await ask(`grading_run/${run}/jobs`, { query: { ...wanted, ...cause(), limit: PAGE } });
    if (mine !== asked) return; // another question was asked meanwhile
    if (wanted.offset && !found.jobs.length) return change({ offset: 0 });
    show(found);
  };
  // An empty cause is one too: that of jobs that said nothing.
  const cause = () => (wanted.cause === null ? {} : { cause: wanted.cause || " " });
  const change = (changes) => {
    Object.assign(wanted, { offset: 0 }, changes);
    const kept = Object.entries(wanted).filter(([name, value]) => value !== null && value !== "" && value !== 0
      && !(name === "sort" && value === "roster") && !(name === "order" && value === "ascending"));
    const text = new URLSearchParams(kept.map(([name, value]) => [name, String(value)])).toString();
    history.replaceState(null, "", `#/run/${run}${text ? `?${text}` : ""}`);
    return load();
  };
  const sorted = (by) => change({ sort: by, order: wanted.sort === by && wanted.order === "ascending" ? "descending" : "ascending" });

  const show = ({ jobs, total }) => {
    fill(head, COLUMNS.map(([by, text, kind]) => h("th", { scope: "col", class: kind ?? null,
      "aria-sort": wanted.sort === by ? wanted.order : null },
    by ? h("button", { class: "plain", "data-sort": by, onclick: async () => {
      await sorted(by);
      head.querySelector(`[data-sort="${by}"]`)?.focus(); // the row was made anew
    } }, text, h("span", { "aria-hidden": "true" }, wanted.sort !== by ? "" : wanted.order === "ascending" ? " ▲" : " ▼")) : text)));
    // Whoever is in the middle of the table with the keyboard stays there when it changes.
    const focused = body.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    fill(body, jobs.length ? jobs.map(row) : h("tr", {}, h("td", { colspan: COLUMNS.length, class: "empty" }, "No student is like that.")));
    if (focused) body.querySelector(`a[href="${focused}"]`)?.focus();
    fill(chosen, wanted.reason && [h("span", { class: "badge bad" }, reason(wanted.reason)),
      wanted.cause && h("code", {}, plain(wanted.cause)),
      h("button", { onclick: () => change({ reason: "", cause: null }) }, "Show all")]);
    chosen.hidden = !wanted.reason;
    const last = wanted.offset + jobs.length;
    fill(pager,
      h("button", { disabled: wanted.offset === 0, onclick: () => change({ offset: Math.max(0, wanted.offset - PAGE) }) }, "Previous"),
      h("button", { disabled: last >= total, onclick: () => change({ offset: wanted.offset + PAGE }) }, "Next"),
      h("span", { class: "quiet number", role: "status" }, total > PAGE ? `${count(wanted.offset + 1)}–${count(last)} of ${plural(total, "job")}` : plural(total, "job")));
  };

  return {
    element,
    load,
    choose: (changes) => { change({ search: "", states: "", ...changes }); search.value = ""; element.querySelector("h2").focus(); element.scrollIntoView(); },
    stop: () => { clearTimeout(typing); asked += 1; },
  };
}

function row(job) {
  const why = job.reason && job.state !== "cancelled" ? [reason(job.reason), job.said && `: ${plain(job.said)}`] : "";
  return h("tr", {},
    h("td", { "data-label": "Student" }, h("a", { href: `#/job/${job.job_id}` }, jobName(job))),
    h("td", { "data-label": "State", class: "badged" }, badge(job.state)),
    h("td", { "data-label": "Why", class: "said-cell" }, why),
    h("td", { "data-label": "Score", class: "number" }, score(job.score, job.max_score)),
    h("td", { "data-label": "Took", class: "number" }, duration(between(job.started_at, job.finished_at))),
    h("td", { "data-label": "Attempt", class: "number" }, job.attempt > 1 ? count(job.attempt) : ""));
}
