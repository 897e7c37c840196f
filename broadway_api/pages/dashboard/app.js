// The frame around the views: who is logged in, which view the address names, light or dark.

import { chooseCourse, course, currentSession, logIn, logOut, resume, whenSessionEnds } from "./api.js";
import { fill, h, notify } from "./dom.js";
import { fleet } from "./fleet.js";
import { job } from "./job.js";
import { queue } from "./queue.js";
import { onReturn } from "./reach.js";
import { run } from "./run.js";
import { runs } from "./runs.js";
import { refreshTimes } from "./words.js";

const main = document.getElementById("main");
const VIEWS = { runs, run, job, queue, fleet };
let leave = () => {};

/** Show the view that the address names: `#/run/<id>?search=…`. */
function show() {
  leave();
  leave = () => {};
  frame();
  if (!currentSession()) return login();
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, id] = path.split("/");
  const view = Object.hasOwn(VIEWS, name) ? VIEWS[name] : runs;
  const place = h("div", { class: "view" });
  fill(main, place);
  leave = view(place, id, new URLSearchParams(query)) ?? (() => {});
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
}

function frame() {
  const session = currentSession();
  const nav = document.getElementById("nav");
  const here = location.hash.replace(/^#\/?/, "").split(/[/?]/)[0] || "runs";
  nav.hidden = !session;
  const links = [["runs", "Runs"], ["queue", "Queue"], ...(session?.role === "operator" ? [["fleet", "Fleet"]] : [])];
  const current = here === "run" || here === "job" ? "runs" : here;
  fill(nav, links.map(([name, text]) => h("a", { href: `#/${name}`, "aria-current": name === current ? "page" : null }, text)));
  fill(document.getElementById("tools"), themeSwitch(), session && [
    session.courses.length > 1 ? courses(session) : h("span", { class: "quiet who" }, session.courses[0] ?? "operator"),
    h("button", { onclick: async () => { await logOut(); show(); } }, "Log out"),
  ]);
}

function courses(session) {
  return h("label", {}, h("span", { class: "visually-hidden" }, "Course"),
    h("select", { onchange: (event) => { chooseCourse(event.target.value); show(); } },
      session.courses.map((name) => h("option", { selected: name === course() }, name))));
}

function login(message, { failed = false } = {}) {
  document.title = "Log in – Broadway";
  const error = h("p", { class: "error", role: "alert" }, message);
  const input = h("input", { id: "token", type: "password", autocomplete: "current-password", required: true, spellcheck: "false" });
  const button = h("button", { class: "primary" }, "Log in");
  const submit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      await logIn(input.value);
      show();
    } catch (problem) {
      error.textContent = problem.status === 401 ? "This token opens nothing here." : problem.message;
      input.select();
    } finally {
      button.disabled = false;
    }
  };
  fill(main, h("section", { class: "card login", "data-failed": failed }, h("form", { onsubmit: submit },
    h("h1", {}, "Log in"),
    h("p", { class: "quiet" }, "A course's token shows its runs, the cluster's token all of them, the queue and the fleet. It is kept nowhere in this browser."),
    h("label", { for: "token" }, "Token", input), error, button)));
  input.focus();
}

// --- light and dark ---------------------------------------------------------------------------------------------

const prefersDark = matchMedia("(prefers-color-scheme: dark)");

function theme() {
  return localStorage.getItem("theme") ?? (prefersDark.matches ? "dark" : "light");
}

function applyTheme() {
  document.documentElement.dataset.theme = theme();
}

function themeSwitch() {
  const dark = theme() === "dark";
  return h("button", {
    "aria-pressed": dark, title: "Dark colours", onclick: (event) => {
      localStorage.setItem("theme", dark ? "light" : "dark");
      applyTheme();
      event.currentTarget.replaceWith(themeSwitch());
      document.querySelector("#tools button").focus();
    },
  }, h("span", { "aria-hidden": "true" }, "◐"), h("span", { class: "visually-hidden" }, "Dark colours"));
}

function begin() {
  return resume().then(show, (error) => { frame(); login(error.message, { failed: true }); });
}

prefersDark.addEventListener("change", () => { applyTheme(); frame(); });
addEventListener("hashchange", show);
addEventListener("unhandledrejection", (event) => {
  // A view asked for something and was refused; what it shows meanwhile is still true.
  if (event.reason?.name === "Error" && "status" in event.reason) {
    event.preventDefault();
    notify(event.reason.message);
  }
});
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
whenSessionEnds(() => { leave(); leave = () => {}; frame(); login("The session is over. Log in again."); });

applyTheme();
onReturn(() => {
  if (!main.querySelector("[data-failed]")) return; // what is shown is listening itself
  if (currentSession()) show();
  else begin();
});
setInterval(refreshTimes, 5000);
begin();
