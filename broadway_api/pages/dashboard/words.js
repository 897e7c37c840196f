// Values in words: states, times, students. And text that a terminal would obey, made harmless.

import { h } from "./dom.js";

const KINDS = {
  ready: "still", waiting: "still", queued: "wait", running: "busy", succeeded: "good", failed: "bad",
  cancelled: "still", pre_processing: "busy", students: "busy", post_processing: "busy", finished: "good",
  alive: "good", lost: "bad", draining: "wait", quarantined: "bad", passed: "good",
};

export const RUN_STATES = ["ready", "pre_processing", "students", "post_processing", "finished", "failed", "cancelled"];
export const JOB_STATES = ["waiting", "queued", "running", "succeeded", "failed", "cancelled"];
export const hasEnded = (state) => ["finished", "failed", "cancelled", "succeeded"].includes(state);

export const words = (name) => String(name).replaceAll("_", "-");
export const badge = (state) => h("span", { class: `badge ${KINDS[state] ?? "still"}` }, words(state));

/** What went wrong, for people. */
const REASONS = {
  stage_failed: "A stage failed", timeout: "Ran out of time", out_of_memory: "Ran out of memory",
  output_limit: "Printed too much", disk_limit: "Wrote too much", image_unavailable: "Image not available",
  runtime_error: "The grader failed", worker_lost: "The grader was lost", secret_unavailable: "Secret not available",
  cancelled: "Cancelled",
};
export const reason = (name) => REASONS[name] ?? words(name);

const counting = new Intl.NumberFormat("en");
export const count = (number) => counting.format(number);
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** Seconds as people say them. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 59.95) return `${seconds.toFixed(seconds < 9.95 ? 1 : 0)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return whole % 60 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : `${whole / 60} min`;
  const minutes = Math.round(whole / 60);
  return minutes < 2880 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${Math.round(minutes / 1440)} days`;
}

export const between = (start, end) =>
  start ? ((end ? Date.parse(end) : Date.now()) - Date.parse(start)) / 1000 : null;

export const bytes = (amount) =>
  amount < 1024 ** 2 ? `${Math.ceil(amount / 1024)} KiB` : `${(amount / 1024 ** 2).toFixed(amount < 1024 ** 3 ? 0 : 1)} MiB`;

const stamps = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** A time as it was here, and how long ago. */
export function time(text) {
  if (!text) return "";
  return h("time", { datetime: text, title: stamps.format(new Date(text)) }, sinceThen(text));
}

/** Times stay true while the page is looked at. */
export function refreshTimes() {
  for (const element of document.querySelectorAll("time")) element.textContent = sinceThen(element.dateTime);
}

function sinceThen(text) {
  const ago = between(text);
  return ago < 5 ? "just now" : ago < 172_800 ? `${duration(ago)} ago` : stamps.format(new Date(text));
}

const clocks = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
export const clock = (moment) => clocks.format(moment);

const NAMES = /^(net_?id|student(_?(id|name))?|user(_?name)?|login|e?mail|name|id)$/i;

/** Characters of a name that are shown. */
const LONGEST_NAME = 80;

/** What a student is called: the entry of the roster that looks like a name, or else the first. */
export function student(entry) {
  if (!entry) return "";
  const names = Object.keys(entry);
  const chosen = names.find((name) => NAMES.test(name)) ?? names[0];
  const name = chosen === undefined ? "" : plain(String(entry[chosen]));
  return (name.length > LONGEST_NAME ? `${name.slice(0, LONGEST_NAME)}…` : name) || "(no name)";
}

export const jobName = (job) =>
  job.type === "student" ? student(job.student) : job.type === "pre_processing" ? "Pre-processing" : "Post-processing";

export const score = (value, most) =>
  value === null || value === undefined ? "" : most === null || most === undefined ? number(value) : `${number(value)} / ${number(most)}`;
export const number = (value) => String(Math.round(value * 1000) / 1000);

const ESCAPES = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])/g;
const CONTROLS = /[\x00-\x08\x0b-\x1f\x7f-\x9f]/g;
const INVISIBLE = /[\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** Text without what steers a terminal; other control characters, and those that reorder text, are made visible. */
export function plain(text) {
  return text.replace(/\r\n/g, "\n").replace(ESCAPES, "")
    .replace(CONTROLS, (character) => character < " " ? String.fromCharCode(0x2400 + character.charCodeAt(0)) : "\u2426")
    .replace(INVISIBLE, (character) => `⟨U+${character.charCodeAt(0).toString(16).toUpperCase()}⟩`);
}
