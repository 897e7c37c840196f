// What a stage printed to one stream: the end of it at first, all of it when asked for, and as a file.

import { h } from "./dom.js";
import { bytes, count, plain } from "./words.js";

/** Characters of an output that are shown at first: the end, where the fault is. */
const SHOWN = 200_000;

/** A finished output as a figure; null if nothing was printed. `name`: of its file, without what tells it from others. */
export function output({ name, stage, stream, all, dropped = 0 }) {
  if (!all) return null;
  const shown = all.length > SHOWN ? all.slice(-SHOWN) : all;
  const pre = box(stage, stream);
  pre.textContent = plain(shown);
  const more = shown.length < all.length && h("button", { class: "plain link", onclick: (event) => {
    pre.textContent = plain(all);
    event.currentTarget.remove();
    pre.focus();
  } }, `Show the ${count(all.length - shown.length)} characters before this`);
  requestAnimationFrame(() => { pre.scrollTop = pre.scrollHeight; }); // the end is where the fault is
  return figure(stream, pre, more, dropped > 0 && h("span", {}, `${bytes(dropped)} more were not kept`),
    h("button", { class: "plain link", "aria-label": `Download ${stream} of stage ${stage + 1}`,
      onclick: () => download(`${name}-stage-${stage + 1}-${stream}.txt`, all) }, "Download"));
}

/** The box that an output stands in: reached by keyboard, since it scrolls. */
export const box = (stage, stream) =>
  h("pre", { tabindex: "0", role: "region", "aria-label": `${stream} of stage ${stage + 1}` });

export const figure = (stream, pre, ...about) =>
  h("figure", { class: `output ${stream}` }, h("figcaption", {}, h("strong", {}, stream), about), pre);

function download(name, content) {
  const url = URL.createObjectURL(new Blob([content], { type: "text/plain" }));
  const link = h("a", { href: url, download: name.replace(/[^\w.@-]+/g, "_") });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
