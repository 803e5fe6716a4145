// The table of replicas: filter by status and text, sort, pages; a row opens into its checks and its history.

import { byId, icon, make, toneBadge } from "./dom.js";
import { days, escapeText, number, plural, time, until } from "./format.js";
import { outcomeLabel, statusGroups, statusLabel } from "./labels.js";

const ROWS_PER_PAGE = 100;
const REASONS_SHOWN = 5;
const ROOM_FOR_A_ROW = 200; // pixels
const ALWAYS_SHOWN = ["to delete", "kept"];
const COLUMNS = [
  { title: "Status", key: "order" },
  { title: "Replica", key: "name" },
  { title: "Age", key: "age", kind: "number" },
  { title: "Reason", key: "reason" },
  { title: "Rule or check", key: "decider" },
];

// What a row is sorted by, computed once: text with its numbers padded, so that 9 is before 10.
function sortKey(row, key) {
  if (key === "age" || key === "order") return row[key] ?? -1;
  row.sortKeys ??= {};
  row.sortKeys[key] ??= (row[key] ?? "").toLowerCase().replace(/\d+/g, (digits) => digits.padStart(8, "0"));
  return row.sortKeys[key];
}

const state = { rows: [], left: null, group: "", decider: null, sort: "order", direction: 1, page: 0, open: new Set(), readHistory: null, printing: false };

// Shows the rows of a plan. `left` is the badge of a planned replica without an outcome. `readHistory(row)` returns what earlier runs did with a replica.
export function showReplicas(rows, { counts, kept, left, readHistory, keep = false }) {
  const focused = document.activeElement?.closest?.("#replicas [data-key], #groups [data-group]");
  Object.assign(state, { rows, left, readHistory });
  if (!keep) Object.assign(state, { group: "", decider: null, sort: "order", direction: 1, page: 0, open: new Set() });
  Object.assign(state, { counts, kept });
  showChoices();
  showRows();
  // The elements are new ones: the focus goes to the one in the same place.
  if (focused?.dataset.group !== undefined) byId("groups").querySelector(`[data-group="${focused.dataset.group}"]`)?.focus();
  else if (focused) (byId("replicas").querySelector(`tr[data-key="${CSS.escape(focused.dataset.key)}"] .toggle`) ?? byId("replicas").querySelector(`th [data-key="${CSS.escape(focused.dataset.key)}"]`))?.focus();
}

function showChoices() {
  byId("filters").hidden = !state.rows.length;
  showGroups(state.counts);
  showKept(state.kept, state.counts);
}

function showGroups(counts) {
  const choice = (group, count, tone) => make("button", {
    type: "button", class: "chip", "data-tone": tone, "aria-pressed": String(state.group === group), "data-group": group,
    disabled: group !== "" && (!count || !state.rows.length), onclick: () => { Object.assign(state, { group: state.group === group ? "" : group, decider: null, page: 0 }); showChoices(); showRows(); byId("groups").querySelector(`[data-group="${group}"]`)?.focus(); },
  }, make("strong", {}, number(count)), ` ${group === "to delete" && state.left ? "planned to delete" : group || "all"}`);
  byId("groups").replaceChildren(
    choice("", counts.reduce((total, { count }) => total + count, 0), null),
    ...counts.filter(({ group, count }) => count || ALWAYS_SHOWN.includes(group)).map(({ group, names, count }) => choice(group, count, statusLabel(names[0]).tone)));
}

// Why replicas are kept, and how many for each reason. A reason shows its replicas.
function showKept(kept, counts) {
  byId("kept").hidden = !kept.length;
  const choose = (decider) => () => {
    const isChosen = state.decider === decider;
    Object.assign(state, { group: isChosen ? "" : "kept", decider: isChosen ? null : decider, page: 0 });
    byId("search").value = "";
    showChoices();
    showRows();
    byId("kept").querySelector(`[data-decider="${CSS.escape(decider)}"]`)?.focus();
  };
  const reason = ({ decider, count }) => {
    const text = `${number(count)} ${decider}`;
    return state.rows.length ? make("button", { type: "button", class: "linklike", "aria-pressed": String(state.decider === decider), "data-decider": decider, onclick: choose(decider) }, text) : text;
  };
  const others = kept.slice(REASONS_SHOWN).reduce((total, { count }) => total + count, 0);
  const parts = kept.slice(0, REASONS_SHOWN).map(reason);
  if (others) parts.push(`${number(others)} for other reasons`);
  const undetermined = counts.find(({ group }) => group === "undetermined")?.count;
  byId("kept").replaceChildren(make("span", { class: "muted" }, "Kept because of: "), ...parts.flatMap((part, at) => (at ? [", ", part] : [part])),
    undetermined ? make("span", { class: "muted" }, ". What is undetermined is kept too, until a person has looked.") : "");
}

function matching() {
  const searched = byId("search").value.trim().toLowerCase();
  const names = state.group ? statusGroups().find(({ group }) => group === state.group)?.names ?? [] : null;
  const key = state.sort;
  const compare = (a, b) => {
    const [first, second] = [sortKey(a, key), sortKey(b, key)];
    if (first === second) return (b.age ?? -1) - (a.age ?? -1);
    return first < second ? -state.direction : state.direction;
  };
  return state.rows
    .filter((row) => (!names || names.includes(row.status)) && (!state.decider || row.decider === state.decider) && (!searched || row.searched.includes(searched)))
    .sort(compare);
}

function mainRow(row) {
  const opened = state.open.has(row.key);
  const toggle = make("button", {
    type: "button", class: "toggle", "aria-expanded": String(opened), "aria-label": `Checks and history of ${row.name}, ${row.id}`,
    onclick: () => { if (!state.open.delete(row.key)) state.open.add(row.key); showRows(); byId("replicas").querySelector(`[data-key="${CSS.escape(row.key)}"] .toggle`)?.focus(); },
  }, icon("chevron"));
  const due = row.dueAt ? make("span", { class: "muted" }, ` · ${time(row.dueAt)}, ${until(row.dueAt)}`) : null;
  const label = row.outcome ? outcomeLabel(row.outcome) : statusLabel(row.status);
  const badge = state.left && !row.outcome && row.status === "expired" ? { ...label, badge: state.left, tone: "muted" } : label;
  return make("tr", { class: opened ? "main opened" : "main", "data-key": row.key },
    make("td", { class: "status" }, make("div", { class: "cells" }, toggle, toneBadge(badge))),
    make("td", { class: "replica" }, make("span", { class: "name", dir: "auto" }, row.name), make("span", { class: "id" }, row.id)),
    make("td", { class: "number", "data-title": "Age" }, days(row.age)),
    make("td", { class: "reason" }, row.reason, due, row.outcome && !label.gone ? make("div", { class: "muted" }, row.outcomeDetail) : null),
    make("td", { class: "decider" }, row.decider));
}

function checkList(row) {
  if (!row.checks.length) {
    return [make("p", {}, row.reason || "No reason was pushed."), make("p", { class: "muted" }, row.nextReason ? `Would otherwise be decided by: ${row.nextReason}` : "The checks of this run were not pushed.")];
  }
  const decides = row.checks.length - 1;
  return [
    make("ol", { class: "checks" }, row.checks.map(([check, seen], at) => make("li", { class: at === decides ? "decides" : "" },
      make("span", { class: "check-name" }, escapeText(check).replaceAll("_", " ")),
      make("span", { class: "check-seen" }, at === decides ? null : make("span", { class: "muted" }, "no: "), escapeText(seen ?? "")), at === decides ? make("span", { class: "badge subtle", "data-tone": "info" }, "decides") : null))),
    row.nextReason ? make("p", { class: "muted" }, `Would otherwise be decided by: ${row.nextReason}`) : null,
  ];
}

function historyList(events) {
  if (!events.length) return make("p", { class: "muted" }, "The runs that were read do not mention it.");
  return make("ol", { class: "history" }, events.map(({ when, since, times, label, text }) => make("li", {}, make("time", { datetime: since }, time(since)), toneBadge(label),
    make("span", {}, text, times > 1 ? make("span", { class: "muted" }, ` · in ${number(times)} plans, last ${time(when)}`) : null))));
}

function detailRow(row) {
  const past = make("div", { class: "past" }, make("p", { class: "muted" }, "Reading the earlier runs …"));
  state.readHistory?.(row.key).then(({ events, runs }) => past.replaceChildren(historyList(events), make("p", { class: "muted" }, `From the XComs of ${plural(runs, "run")}. The ledger has all runs.`)))
    .catch(() => past.replaceChildren(make("p", { class: "muted" }, "The earlier runs could not be read.")));
  const facts = [["Created", time(row.createdAt)], ["Last used", time(row.lastUsedAt)], ["Id", row.id]].filter(([, value]) => value !== "–");
  return make("tr", { class: "detail" }, make("td", { colspan: COLUMNS.length }, make("div", { class: "detail-grid" },
    make("section", {}, make("h4", {}, "Checks, in order: the first that applies decides"), checkList(row), row.outcomeDetail ? make("p", {}, make("strong", {}, "Outcome: "), row.outcomeDetail) : null),
    make("section", {}, make("h4", {}, "History"), past, make("dl", { class: "facts small" }, facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))))))));
}

function showRows() {
  const found = matching();
  const size = state.printing ? Math.max(1, found.length) : ROWS_PER_PAGE;
  const pages = Math.max(1, Math.ceil(found.length / size));
  state.page = Math.min(state.page, pages - 1);
  const from = state.page * size;
  const rows = found.slice(from, from + size);
  byId("found").textContent = found.length ? `${number(from + 1)} to ${number(from + rows.length)} of ${plural(found.length, "replica")}` : state.rows.length ? "No replica matches" : "";
  const head = COLUMNS.map(({ title, key, kind }) => make("th", { scope: "col", class: kind, "aria-sort": key === state.sort ? (state.direction > 0 ? "ascending" : "descending") : undefined },
    // Chromium does not repeat a head with buttons on each printed page.
    state.printing ? title : make("button", { type: "button", "data-key": key, onclick: () => sortBy(key) }, title, make("span", { class: "arrow", "aria-hidden": "true" }, key === state.sort ? (state.direction > 0 ? "▲" : "▼") : "↕"))));
  byId("replicas").replaceChildren(rows.length
    ? make("table", {}, make("caption", { class: "hidden" }, "Replicas"), make("thead", {}, make("tr", {}, head)),
      make("tbody", {}, rows.flatMap((row) => (state.open.has(row.key) ? [mainRow(row), detailRow(row)] : [mainRow(row)]))))
    : make("p", { class: "empty" }, state.rows.length ? "No replica matches the search." : "The rows are not in Airflow."));
  byId("pages").replaceChildren(...(pages > 1 ? [
    make("button", { type: "button", disabled: state.page === 0, onclick: () => showPage(state.page - 1) }, "Previous"),
    make("span", {}, `Page ${number(state.page + 1)} of ${number(pages)}`),
    make("button", { type: "button", disabled: state.page >= pages - 1, onclick: () => showPage(state.page + 1) }, "Next"),
  ] : []));
}

function sortBy(key) {
  Object.assign(state, key === state.sort ? { direction: -state.direction } : { sort: key, direction: key === "age" ? -1 : 1 });
  state.page = 0;
  showRows();
  byId("replicas").querySelector(`th [data-key=${key}]`)?.focus();
}

function showPage(page) {
  state.page = page;
  showRows();
  byId("replicas-title").scrollIntoView({ block: "start" });
  byId("replicas").focus({ preventScroll: true });
}

const isKept = ({ status }) => statusGroups().find(({ group }) => group === "kept")?.names.includes(status);

// Moves the search field up if what it finds is below the screen, as on a phone.
function showWhatWasFound() {
  if (byId("replicas").getBoundingClientRect().top > innerHeight - ROOM_FOR_A_ROW) byId("filters").scrollIntoView({ block: "start" });
}

export function listenToReplicas() {
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("search").addEventListener("input", () => {
    state.page = 0;
    showRows();
    showWhatWasFound();
  });
  byId("search").addEventListener("focus", showWhatWasFound);
  byId("to-search").addEventListener("click", () => {
    if (byId("plan-content").hidden) {
      byId("no-plan").scrollIntoView({ block: "center" });
      return;
    }
    byId("replicas-title").scrollIntoView({ block: "start" });
    if (!state.rows.some(isKept)) return;
    Object.assign(state, { group: "kept", decider: null, page: 0 });
    showChoices();
    showRows();
    // A field in focus opens the keyboard of a phone, over the rows.
    const target = matchMedia("(pointer: coarse)").matches ? byId("groups").querySelector('[data-group="kept"]') : byId("search");
    target.focus({ preventScroll: true });
  });
  const print = (printing) => () => {
    state.printing = printing;
    showRows();
  };
  addEventListener("beforeprint", print(true));
  addEventListener("afterprint", print(false));
}
