// What the page asks of the API. The cookie goes along by itself; no script here ever sees a token again.

import { relief, trouble } from "./reach.js";

/** Milliseconds until something is asked again that got no answer. */
const AGAIN = 3000;

let session = null;
let ping = 0;
let onEnd = () => {};

export const currentSession = () => session;
export const whenSessionEnds = (listener) => { onEnd = listener; };

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The data of an answer. Throws ApiError, with what the API said. */
export async function ask(path, { method = "GET", body, query } = {}) {
  const headers = {};
  if (method !== "GET" && session) headers["X-Broadway-Proof"] = session.proof;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(address(path, query), {
      method, headers, body: body === undefined ? undefined : JSON.stringify(body), credentials: "same-origin",
    });
  } catch {
    unanswered();
    throw new ApiError(0, "The API cannot be reached.");
  }
  if (answer.status === 503) unanswered();
  else relief(ask);
  const said = await answer.json().catch(() => ({}));
  if (answer.ok) return said.data;
  if (answer.status === 401 && session && path !== "session") {
    session = null;
    onEnd();
  }
  throw new ApiError(answer.status, said.data?.message ?? said.message ?? `The API answered with ${answer.status}.`);
}

/** Ask until there is an answer: whoever asked first may have given up. */
function unanswered() {
  trouble(ask);
  clearTimeout(ping);
  ping = setTimeout(() => ask("session").catch(() => {}), AGAIN);
}

function address(path, query = {}) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== "" && value !== null && value !== undefined) parameters.set(name, value);
  }
  // A token that opens several courses has to say which of them is meant.
  if (session && session.courses.length > 1 && !parameters.has("course")) parameters.set("course", course());
  const text = parameters.toString();
  return `api/v1/${path}${text ? `?${text}` : ""}`;
}

/** The course that is looked at by a token of several. */
export const course = () => sessionStorage.getItem("course") ?? session.courses[0];
export const chooseCourse = (name) => sessionStorage.setItem("course", name);

/** Learn whose the cookie is; null without a session. */
export async function resume() {
  try {
    session = await ask("session");
  } catch (error) {
    if (error.status !== 401) throw error;
    session = null;
  }
  return session;
}

export async function logIn(token) {
  session = await ask("session", { method: "POST", body: { token } });
}

export async function logOut() {
  await ask("session", { method: "DELETE" });
  session = null;
}

/**
 * Server-sent events until the returned function is called. A page that nobody sees listens to nothing, so that a
 * forgotten tab costs nothing; when it is seen again it hears how things are. `listeners` are by the events' names.
 */
export function follow(path, listeners, query) {
  let source = null;
  let timer = 0;
  let stopped = false;
  const open = () => {
    source = new EventSource(address(path, query));
    for (const [name, listener] of Object.entries(listeners)) {
      source.addEventListener(name, (event) => listener(JSON.parse(event.data)));
    }
    source.addEventListener("open", () => relief(listeners));
    source.addEventListener("error", () => {
      trouble(listeners);
      if (source?.readyState !== EventSource.CLOSED) return; // it comes back by itself
      source = null;
      // Refused, or told that there is nothing more. Asking tells which; a session that is over ends here.
      ask("session").then(() => { if (!stopped && !document.hidden) timer = setTimeout(reopen, AGAIN); }, onRefusal);
    });
  };
  const onRefusal = (error) => {
    if (error.status === 401) { session = null; onEnd(); } else if (!stopped) timer = setTimeout(reopen, AGAIN);
  };
  const reopen = () => { if (!stopped && source === null && !document.hidden) open(); };
  const close = () => { clearTimeout(timer); source?.close(); source = null; relief(listeners); };
  const seen = () => { if (document.hidden) close(); else reopen(); };
  document.addEventListener("visibilitychange", seen);
  reopen();
  return () => {
    stopped = true;
    document.removeEventListener("visibilitychange", seen);
    close();
  };
}
