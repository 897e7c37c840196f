// The graders: what each is, what it runs, and whether it may have more.

import { ask, follow } from "./api.js";
import { fill, h, notify } from "./dom.js";
import { badge, count, plain, plural, time } from "./words.js";

export function fleet(place) {
  document.title = "Fleet – Broadway";
  const total = h("p", { class: "quiet" });
  const list = h("ul", { class: "workers" });
  fill(place, h("div", { class: "head" }, h("h1", {}, "Fleet")), total, list);
  return follow("overview/workers/events", { workers: ({ workers }) => {
    const slots = workers.reduce((sum, one) => sum + one.slots, 0);
    const busy = workers.reduce((sum, one) => sum + one.running.length, 0);
    total.textContent = workers.length ? `${plural(workers.length, "grader")}, ${count(busy)} of ${plural(slots, "slot")} busy.`
      : "No grader has registered. Start one with: python3 grader.py <token>";
    const focused = document.activeElement?.dataset?.worker;
    fill(list, workers.map(card));
    if (focused) list.querySelector(`[data-worker="${focused}"]`)?.focus();
  } });
}

function card(worker) {
  const away = worker.state === "draining" || worker.state === "quarantined";
  const word = away ? "resume" : "drain";
  const steer = async () => {
    await ask(`workers/${worker.worker_id}/${word}`, { method: "POST" });
    notify(`${worker.hostname} ${away ? "gets jobs again" : "gets no new jobs"}.`);
  };
  const slots = Array.from({ length: Math.min(worker.slots, 64) }, (_, place) =>
    h("span", { class: `dot ${place < worker.running.length ? "running" : "waiting"}` }));
  const { self_test: selfTest, ...labels } = worker.labels;
  return h("li", { class: "card" },
    h("div", { class: "worker-head" }, h("h2", {}, plain(worker.hostname)), badge(worker.state),
      worker.state !== "lost" && h("button", { "data-worker": worker.worker_id, "aria-label": `${away ? "Resume" : "Drain"} ${worker.hostname}`, onclick: steer }, away ? "Resume" : "Drain")),
    worker.quarantined_until && h("p", { class: "error" }, "No jobs until ", new Date(worker.quarantined_until).toLocaleTimeString(), ", then one as a probe."),
    h("div", { class: "slots", role: "img", "aria-label": `${worker.running.length} of ${worker.slots} slots busy` }, slots),
    h("dl", { class: "facts" }, [
      ["Slots busy", `${worker.running.length} of ${worker.slots}`], ["Jobs done", count(worker.jobs_processed)],
      ["Runtime", worker.runtime || "unknown"], ["Version", worker.version || "unknown"], ["Last seen", time(worker.last_seen)],
      ["Self-test", plain(selfTest ?? "")],
    ].filter(([, value]) => value !== "").map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    Object.keys(labels).length > 0 && h("ul", { class: "chips", "aria-label": "Labels" }, Object.entries(labels).map(([name, value]) =>
      h("li", {}, plain(value === "" ? name : `${name}=${value}`)))),
    worker.running.length > 0 && h("p", { class: "running" }, h("span", { class: "quiet" }, "Runs"),
      worker.running.slice(0, 16).map((id) => h("a", { class: "mono", href: `#/job/${id}` }, id.slice(-8)))));
}
