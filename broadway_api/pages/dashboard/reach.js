// Whether the API can be reached. What is shown stays true of the moment at which it was told, so that moment is named.

import { clock } from "./words.js";

/** Milliseconds that it may be away unnoticed: a restart need not be told. */
const PATIENCE = 4000;

const troubled = new Set(); // whoever asks or listens in vain
let lookout = 0;
let whenBack = () => {};

export const onReturn = (listener) => { whenBack = listener; };

/** Somebody gets no answer. */
export function trouble(who) {
  troubled.add(who);
  if (lookout) return;
  const since = new Date();
  lookout = setTimeout(() => say(`The API does not answer. You see how things were at ${clock(since)}; it is asked again every few seconds.`), PATIENCE);
}

/** Somebody does again, or has stopped. */
export function relief(who) {
  if (!troubled.delete(who) || troubled.size) return;
  clearTimeout(lookout);
  lookout = 0;
  say("");
  whenBack();
}

function say(text) {
  document.getElementById("away").textContent = text;
}
