// What a running job prints, as it comes. Best effort: the job's log, shown when it has ended, is the truth.

import { follow } from "./api.js";
import { fill, h } from "./dom.js";
import { box, figure } from "./output.js";
import { bytes, plain } from "./words.js";

/** Characters of a stream that are kept here: its end. All of it comes with the log. */
const KEPT = 60_000;

/** Milliseconds between two paintings of a stream, however fast it comes. */
const PAINT_EVERY = 200;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Follow a job's output into `place`. `changed` is called when its state or attempt has, and when it has ended. */
export function liveOutput(place, id, pipeline, changed) {
  let attempt = null;
  let state = "";
  let stages = new Map();

  const stage = (number) => {
    if (!stages.size) fill(place);
    if (!stages.has(number)) {
      const made = liveStage(number, pipeline[number] ?? {});
      stages.set(number, made);
      place.append(made.element);
    }
    return stages.get(number);
  };
  const about = (told) => {
    if (attempt !== null && told.attempt !== attempt) { // what was told is in nobody's log any more
      stages = new Map();
      fill(place, h("p", { class: "quiet" }, "It is tried again."));
    }
    attempt = told.attempt;
  };
  const stop = follow(`grading_job/${id}/log`, {
    job: (told) => {
      about(told);
      if (state && told.state !== state) changed();
      state = told.state;
    },
    stage: (told) => { about(told); stage(told.stage).tell(told); },
    output: (told) => { about(told); stage(told.stage)[told.stream]?.add(told); },
    end: () => { stop(); changed(); },
  }, { follow: true });
  return stop;
}

function liveStage(number, config) {
  const state = h("span", { class: "badge busy" }, "running");
  const outputs = h("div", { class: "stages" });
  const said = h("p", { class: "quiet" }, config.logs === false ? "Its output is not kept." : "It has printed nothing yet.");
  const spoken = () => said.remove();
  return {
    element: h("article", { class: "stage", "aria-label": `Stage ${number + 1}` },
      h("div", { class: "head" }, h("h3", {}, `${number + 1}. ${config.image ?? "stage"}`),
        config.entry_point && h("code", { class: "quiet" }, config.entry_point.join(" ")), state), outputs, said),
    stderr: stream(number, "stderr", outputs, spoken),
    stdout: stream(number, "stdout", outputs, spoken),
    tell(told) {
      if (told.state !== "ended") return;
      const broken = told.reason || told.exit_code;
      state.className = `badge ${broken ? "bad" : "good"}`;
      state.textContent = told.exit_code === null ? "ended" : `exit code ${told.exit_code}`;
    },
  };
}

function stream(number, name, place, spoken) {
  const pre = box(number, name);
  const missed = h("span");
  const element = figure(name, pre, missed);
  let text = "";
  let read = 0; // bytes of the log up to here, told or not
  let lost = 0;
  let painting = 0;

  const paint = () => {
    painting = 0;
    // Whoever has scrolled up to read something is left there.
    const follows = pre.scrollHeight - pre.scrollTop - pre.clientHeight < 32;
    pre.textContent = plain(text);
    if (follows) pre.scrollTop = pre.scrollHeight;
    missed.textContent = lost ? `${bytes(lost)} before this are shown when it has ended` : "";
  };
  return {
    /** A piece of the log. After a reconnection some come again, which their places tell. */
    add({ start, text: piece }) {
      let data = encoder.encode(piece);
      if (start < read) data = data.subarray(read - start);
      lost += Math.max(0, start - read);
      read = Math.max(start, read) + data.length;
      text += decoder.decode(data);
      if (text.length > KEPT) {
        const cut = text.length - KEPT;
        lost += encoder.encode(text.slice(0, cut)).length;
        text = text.slice(cut);
      }
      if (!element.isConnected) { spoken(); place.append(element); }
      painting ||= setTimeout(paint, PAINT_EVERY);
    },
  };
}
