// Elements out of values. Text becomes text nodes and nothing else: whatever a student's code printed stays text.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "rect", "line", "text", "title", "g"]);

/** An element. `on…` properties are listeners, the others attributes; false, null and undefined leave one out. */
export function h(tag, properties = {}, ...children) {
  const element = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...nodes(children));
  return element;
}

/** Put new children in place of the old. */
export function fill(element, ...children) {
  element.replaceChildren(...nodes(children));
  return element;
}

function nodes(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

/** What stands in place of a view that the API refused, or had no answer for. */
export const refused = (error) => h("p", { class: "card error", role: "alert", "data-failed": true }, error.message);

/** Say something that need not be confirmed, to eyes and screen readers. */
export function notify(text) {
  const notice = document.getElementById("notice");
  notice.textContent = text;
  clearTimeout(notify.timer);
  notify.timer = setTimeout(() => { notice.textContent = ""; }, 6000);
}

/** Ask before doing what cannot be undone; resolves to whether it was agreed to. */
export function confirmed(question, word) {
  return new Promise((resolve) => {
    const dialog = h("dialog", { "aria-labelledby": "question" },
      h("p", { id: "question" }, question),
      h("form", { class: "actions", method: "dialog", onsubmit: (event) => {
        event.preventDefault();
        dialog.close(event.submitter.value);
      } }, h("button", { value: "no" }, "Back"), h("button", { value: "yes", class: "danger" }, word)));
    dialog.addEventListener("close", () => { dialog.remove(); resolve(dialog.returnValue === "yes"); });
    document.body.append(dialog);
    dialog.showModal();
  });
}
