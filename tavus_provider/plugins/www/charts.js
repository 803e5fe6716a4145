// Bar charts, drawn by Chart.js, which is shipped with this page.

import { byId } from "./dom.js";

const charts = {};

const colour = (variable) => getComputedStyle(document.documentElement).getPropertyValue(variable).trim();

export const toneColour = (tone) => colour(`--tone-${tone}`);

// The description is read out instead of the chart; the page has its numbers in a table next to it.
export function chart(id, description, { data, horizontal = false, legend = false }) {
  byId(id).setAttribute("aria-label", description);
  charts[id]?.destroy();
  const text = colour("--soft");
  const line = colour("--line");
  const axis = (options) => ({ ticks: { color: text, precision: 0 }, grid: { color: line }, border: { color: line }, stacked: true, ...options });
  const counts = axis({ beginAtZero: true });
  const names = axis({ grid: { display: false } });
  charts[id] = new window.Chart(byId(id), {
    type: "bar",
    data,
    options: {
      animation: false,
      responsive: true,
      maintainAspectRatio: false,
      indexAxis: horizontal ? "y" : "x",
      scales: horizontal ? { x: counts, y: names } : { x: names, y: counts },
      plugins: { legend: { display: legend, position: "bottom", labels: { color: text, boxWidth: 12 } } },
      maxBarThickness: 34,
    },
  });
}
