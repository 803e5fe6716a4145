// Elements of the page. Everything is put in as text, never as HTML.

const AIRFLOW = new URL("../", location.href);
const SVG = "http://www.w3.org/2000/svg";

// Paths of 24 x 24, drawn as lines.
const ICONS = {
  check: "M20 6 9 17l-5-5",
  cross: "M18 6 6 18M6 6l12 12",
  minus: "M5 12h14",
  clock: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM12 7v5l3 3",
  person: "M20 21a8 8 0 0 0-16 0M12 3a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9z",
  play: "M7 4l12 8-12 8z",
  lock: "M6 11h12v9H6zM8 11V8a4 4 0 0 1 8 0v3",
  question: "M9 9a3 3 0 1 1 4.5 2.6c-1 .6-1.5 1.2-1.5 2.4M12 18v.01",
  trash: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13",
  shield: "M12 3l7 3v6c0 4.5-3 7.500-7 9-4-1.500-7-4.500-7-9V6z",
  dot: "M12 10a2 2 0 1 0 0 4 2 2 0 0 0 0-4z",
  skip: "M6 5l9 7-9 7zM18 5v14",
  chevron: "M9 6l6 6-6 6",
  warning: "M12 4l9 16H3zM12 10v4M12 17v.01",
};
const TONE_ICONS = { danger: "trash", warning: "clock", hold: "lock", unclear: "question", info: "shield", good: "check", "good-soft": "check", muted: "minus" };
const STATES = {
  success: "check", failed: "cross", running: "play", queued: "clock", scheduled: "clock", skipped: "skip",
  awaiting_input: "person", deferred: "person", up_for_retry: "clock", upstream_failed: "cross", done: "check", waiting: "person", todo: "dot",
};

export const byId = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "share") node.style.setProperty("--share", value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

// Replaces the children of an element. The focus stays in the same place: also while a run under way is read again.
export function replace(container, ...children) {
  const focusable = () => [...container.querySelectorAll("a, button")];
  const at = focusable().indexOf(document.activeElement);
  container.replaceChildren(...children);
  if (at >= 0) focusable()[at]?.focus({ preventScroll: true });
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name] ?? ICONS.dot);
  svg.append(path);
  return svg;
}

// A badge for a status or an outcome: its colour, an icon and its word.
export const toneBadge = ({ badge, tone, unfinished, gone }) => make("span", { class: "badge subtle", "data-tone": tone }, icon(unfinished ? "warning" : gone ? "trash" : TONE_ICONS[tone]), badge);

const words = (state) => state.split("_").map((word) => word[0].toUpperCase() + word.slice(1)).join(" ");

// A badge as Airflow shows the state of a run or a task.
export const stateBadge = (state) => (state ? make("span", { class: "badge solid", "data-state": state }, icon(STATES[state] ?? "dot"), words(state)) : null);
export const stateIcon = (state) => make("span", { class: "step-icon", "data-state": state }, icon(STATES[state] ?? "dot"));

// Airflow shows this page in a frame that may not open or leave pages. A link in the page around it may.
export function link(path, text, attributes = {}) {
  const open = (event) => {
    if (window.parent === window) return;
    try {
      const outer = window.parent.document.createElement("a");
      outer.href = event.currentTarget.href;
      if (event.ctrlKey || event.metaKey || event.button === 1) outer.target = "_blank";
      outer.rel = "noopener";
      window.parent.document.body.append(outer);
      outer.click();
      outer.remove();
      event.preventDefault();
    } catch { /* the page around this one has another origin: the link works as a plain link */ }
  };
  return make("a", { ...attributes, href: new URL(path, AIRFLOW).href, onclick: open, onauxclick: open }, text);
}
