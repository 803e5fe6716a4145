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
const find = (table, name) => table.find((row) => row.name === name)
  ?? { name, text: String(name ?? "unknown").replaceAll("_", " "), group: "other", tone: "unclear" };

function groups(table) {
  const byGroup = new Map();
  for (const { name, group } of table) byGroup.set(group, [...(byGroup.get(group) ?? []), name]);
  return [...byGroup].map(([group, names]) => ({ group, names }));
}

export const statusLabel = (name) => find(tables.statuses, name);
export const outcomeLabel = (name) => find(tables.outcomes, name);
export const isStatus = (name) => tables.statuses.some((row) => row.name === name);
export const statusNames = () => tables.statuses.map(({ name }) => name);
export const outcomeNames = () => tables.outcomes.map(({ name }) => name);
// [{ group, names }] in the order of the table.
export const statusGroups = () => groups(tables.statuses);
export const outcomeGroups = () => groups(tables.outcomes);
