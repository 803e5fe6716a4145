// Bar charts of elements: each bar has its number as text, so a chart needs no table and no legend.

import { make } from "./dom.js";
import { number } from "./format.js";

const share = (count, largest) => (largest ? (count / largest).toFixed(4) : "0");

// Horizontal bars: [{ name, count, tone, note }].
export function bars(rows, { label, empty }) {
  if (!rows.length) return make("p", { class: "empty" }, empty);
  const largest = Math.max(...rows.map(({ count }) => count));
  return make("ul", { class: "bars", role: "list", "aria-label": label }, rows.map(({ name, count, tone, note }) => make("li", {},
    make("span", { class: "bar-name" }, name, note ? make("span", { class: "muted" }, ` ${note}`) : null),
    make("span", { class: "bar-track", "aria-hidden": "true" }, make("span", { class: count ? "bar" : "bar none", "data-tone": tone, share: share(count, largest) })),
    make("span", { class: "bar-count" }, number(count)))));
}

// Columns in time: [{ name, long, count, tone }]; `long` is read out instead of the name.
export function columns(rows, { label }) {
  const largest = Math.max(...rows.map(({ count }) => count));
  return make("ol", { class: "columns", role: "list", "aria-label": label }, rows.map(({ name, long, count, tone }) => make("li", {},
    make("span", { class: "column-space", "aria-hidden": "true" },
      make("span", { class: "column-count" }, number(count)),
      make("span", { class: count ? "column" : "column none", "data-tone": tone, share: share(count, largest) })),
    make("span", { class: "column-name", "aria-hidden": "true" }, name),
    make("span", { class: "hidden" }, `${long ?? name}: ${number(count)}`))));
}
