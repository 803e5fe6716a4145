// Labels of statuses and outcomes: labels.json is written from tavus_provider/rendering/labels.py, which has
// the same labels for the log and the commands. A new status or outcome needs no change here.

import { PageError } from "./airflow.js";

const tables = { statuses: [], outcomes: [] };

export async function loadLabels() {
  if (tables.statuses.length) return;
  const response = await fetch(new URL("labels.json", location.href)).catch(() => null);
  if (!response?.ok) throw new PageError("Airflow did not send labels.json, a file of this page.");
  const { statuses, outcomes } = await response.json();
  Object.assign(tables, { statuses, outcomes });
}

// A name that is not in the table is shown as it is.
function find(table, name) {
  const text = String(name ?? "unknown").replaceAll("_", " ");
  return table.find((row) => row.name === name)
    ?? { name, text, badge: text, group: "other", tone: "unclear", gone: false, unfinished: false };
}

function groups(table) {
  const byGroup = new Map();
  for (const { name, group } of table) byGroup.set(group, [...(byGroup.get(group) ?? []), name]);
  return [...byGroup].map(([group, names]) => ({ group, names }));
}

export const statusLabel = (name) => find(tables.statuses, name);
export const outcomeLabel = (name) => find(tables.outcomes, name);
export const isStatus = (name) => tables.statuses.some((row) => row.name === name);
export const statusNames = () => tables.statuses.map(({ name }) => name);
// [{ group, names }] in the order of the table.
export const statusGroups = () => groups(tables.statuses);
export const outcomeGroups = () => groups(tables.outcomes);

// The counts of a report in words, such as "3 deleted, 1 skipped"; empty without any.
export const describeCounts = (counts) => outcomeGroups()
  .map(({ group, names }) => [group, names.reduce((total, name) => total + (counts[name] ?? 0), 0)])
  .filter(([, count]) => count)
  .map(([group, count]) => `${count.toLocaleString("en")} ${group}`)
  .join(", ");

// How many replicas a report counts: in all, gone by this run, and unfinished.
export function totals(counts) {
  const total = { all: 0, gone: 0, unfinished: 0 };
  for (const [name, count] of Object.entries(counts ?? {})) {
    const label = outcomeLabel(name);
    total.all += count;
    if (label.gone) total.gone += count;
    if (label.unfinished) total.unfinished += count;
  }
  return total;
}
