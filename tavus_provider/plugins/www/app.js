// The Tavus page: plans, their verdicts, and the outcomes of runs. It reads Airflow only, never Tavus.

import { PageError, addTasks, readLatestTasks, readOutcomes, readTasksOfRun, readXCom, runPath, taskPath } from "./airflow.js";
import { chart, toneColour } from "./charts.js";
import { byId, link, make, marked, table } from "./dom.js";
import { days, escapeText, formatName, number, plural, seconds, time, until } from "./format.js";
import { isStatus, loadLabels, outcomeGroups, outcomeLabel, outcomeNames, statusGroups, statusLabel, statusNames } from "./labels.js";

const RUNS_PER_READ = 15;
const ROWS_PER_PAGE = 100;
const NEXT_DELETES = 6;
const CHART_BARS = 9;
const AGES = [["0 to 6", 7], ["7 to 29", 30], ["30 to 89", 90], ["90 to 179", 180], ["180 to 364", 365], ["365 and more", Infinity], ["unknown", NaN]];

const state = {
  runs: [], offset: 0, more: false, // what was read of Airflow
  shown: null, plan: null, verdicts: null, rows: [], // the plan that is shown, and its replicas
  sort: ["order", 1], page: 0, // of the table of replicas
  request: 0, // number of the latest request to show a plan; earlier ones are dropped
};

// -- values of a plan

// The verdicts that were pushed, or null if the run has only their counts.
const verdictRows = (verdicts) => (verdicts?.notice ? null : verdicts?.rows ?? null);

// Returns one row for each replica that is known by name: all of them, or without verdicts those in the plan.
function replicaRows(plan, verdicts) {
  const planned = new Map([...plan.delete, ...(plan.scheduled ?? [])].map((row) => [row.replica_id, row]));
  const rows = verdictRows(verdicts) ?? [
    ...plan.delete.map((row) => ({ ...row, status: "expired", reason_code: "expired" })),
    ...(plan.scheduled ?? []).map((row) => ({ ...row, status: "scheduled", reason_code: "scheduled" })),
    ...(plan.undetermined ?? []).map((row) => ({ ...row, status: "undetermined", reason_code: "undetermined" })),
  ];
  const order = statusNames();
  return rows.map((verdict) => {
    const inPlan = planned.get(verdict.replica_id) ?? {};
    const row = {
      id: escapeText(verdict.replica_id ?? ""),
      name: formatName(verdict.replica_name ?? inPlan.replica_name),
      status: verdict.status,
      order: order.includes(verdict.status) ? order.indexOf(verdict.status) : order.length,
      decider: decider(inPlan.rule ? { rule: inPlan.rule } : { code: verdict.reason_code ?? verdict.status }),
      reason: escapeText(verdict.reason ?? ""),
      nextReason: escapeText(verdict.next_reason ?? ""),
      age: typeof verdict.age_days === "number" ? verdict.age_days : inPlan.age_days ?? null,
    };
    row.searched = `${row.id} ${row.name} ${row.reason} ${row.nextReason} ${row.decider}`.toLowerCase();
    return row;
  });
}

// The rule or the check that decided, in words.
const decider = ({ rule, code }) => (rule ? `rule ${escapeText(rule)}` : escapeText(code ?? "unknown").replaceAll("_", " "));

// Returns [{ status, decider, count }], the largest count first.
function countReplicas(plan, verdicts) {
  const counts = new Map();
  const add = (status, text, count) => {
    const key = JSON.stringify([status, text]);
    if (!counts.has(key)) counts.set(key, { status, decider: text, count: 0 });
    counts.get(key).count += count;
  };
  if (verdictRows(verdicts)) {
    state.rows.forEach((row) => add(row.status, row.decider, 1));
  } else {
    plan.delete.forEach((row) => add("expired", decider(row.rule ? { rule: row.rule } : { code: "expired" }), 1));
    for (const status of ["scheduled", "undetermined"]) add(status, decider({ code: status }), (plan[status]?.length ?? 0) + (plan.left_out?.[status] ?? 0));
    // A plan counts what it keeps by reason code. Codes that are not a status of their own are of checks that keep.
    for (const [code, count] of Object.entries(plan.keep ?? {})) add(isStatus(code) ? code : "kept", decider({ code }), count);
  }
  return [...counts.values()].filter(({ count }) => count > 0).sort((a, b) => b.count - a.count);
}

const byDueDate = (rows) => [...rows].sort((a, b) => (a.due_at > b.due_at ? 1 : -1));
const waitsForApproval = ({ state: taskState }) => ["awaiting_input", "deferred"].includes(taskState);
const sum = (counts) => counts.reduce((total, count) => total + count, 0);

// -- the plan that is shown

function showAbout({ run, task, plan, report }) {
  const limits = plan.limits ?? {};
  const deletes = plan.delete.length;
  // The percentage is of all replicas, also of soft-deleted ones that Tavus no longer lists. It allows at least one.
  const total = plan.listed + plan.delete.filter((row) => row.source === "soft_deleted" && row.created_at === null).length;
  const percent = limits.max_deletion_percent;
  const allowed = percent > 0 ? Math.max(1, Math.floor((percent * total) / 100)) : 0;
  const waiting = run.approve.find(waitsForApproval);
  const parts = [
    make("p", {}, "Made ", time(plan.made_at), " by ", link(taskPath(task), escapeText(`${task.dag_id} / ${task.task_id}`)),
      `, connection ${escapeText(plan.tavus_conn_id ?? "–")} (${escapeText(plan.origin ?? "–")}), policy ${escapeText(plan.policy?.name ?? "–")}, `,
      plan.hard ? make("strong", {}, "permanent deletes") : "soft deletes", ". ", link(runPath(run), "Open the run")),
    make("p", { class: "soft" }, `Limits: ${plural(deletes, "replica")} of at most ${number(limits.max_deletions)}, `,
      `${total ? ((100 * deletes) / total).toFixed(1) : 0} % of the account of at most ${number(percent)} %. `,
      `Valid until ${time(plan.valid_until)}. Digest `, make("code", {}, escapeText(plan.digest ?? "–").slice(0, 16)), "…"),
  ];
  const exceeded = deletes > limits.max_deletions || deletes > allowed;
  if (exceeded) parts.push(make("p", { class: "note bad" }, "This exceeds the limits: a real run fails before its first delete."));
  if (task.state === "failed") parts.push(make("p", { class: "note bad" }, "The plan task failed, so nothing was deleted. See its log."));
  if (waiting) parts.push(make("p", { class: "note" }, "This plan waits for an approval. ", link(`${taskPath(waiting)}/required_actions`, "Open the approval")));
  if (report?.counts) {
    const counts = Object.entries(report.counts).filter(([, count]) => count)
      .map(([outcome, count]) => `${number(count)} ${escapeText(outcomeLabel(outcome).text)}`);
    parts.push(make("p", { class: "note" }, report.dry_run ? "Dry run, nothing was sent: " : "Carried out: ", counts.join(", ") || "nothing to do", "."));
  }
  byId("about").replaceChildren(...parts);
}

function showTiles(plan, counts) {
  const next = byDueDate(plan.scheduled ?? [])[0];
  const tiles = statusGroups().map(({ group, names }) => ({
    value: sum(counts.filter(({ status }) => names.includes(status)).map(({ count }) => count)),
    text: next && names.includes("scheduled") ? `${group}, next ${until(next.due_at)}` : group,
    status: names.length === 1 ? names[0] : null,
  }));
  const content = ({ value, text }) => [make("strong", {}, number(value)), make("span", {}, text)];
  byId("tiles").replaceChildren(
    make("li", {}, make("div", {}, ...content({ value: plan.listed, text: "replicas in the account" }))),
    ...tiles.map((tile) => make("li", {}, tile.status
      ? make("button", { type: "button", tone: statusLabel(tile.status).tone, title: "Show these in the table", onclick: () => filterBy(tile.status) }, ...content(tile))
      : make("div", {}, ...content(tile)))));
}

function filterBy(status) {
  byId("verdict").value = status;
  state.page = 0;
  showRows();
  byId("replicas").focus();
}

function showDeciders(counts) {
  const bars = counts.slice(0, CHART_BARS);
  const others = sum(counts.slice(CHART_BARS).map(({ count }) => count));
  if (others) bars.push({ status: null, decider: "others", count: others });
  chart("deciders-chart", `Bars: ${bars.map((bar) => `${bar.decider} ${bar.count}`).join(", ")}. The table beside has the numbers.`, {
    horizontal: true,
    data: {
      labels: bars.map((bar) => bar.decider),
      datasets: [{ label: "replicas", data: bars.map((bar) => bar.count), backgroundColor: bars.map((bar) => toneColour(statusLabel(bar.status).tone)) }],
    },
  });
  const cell = (row) => {
    const { text, tone } = statusLabel(row.status);
    return make("span", {}, marked(row.decider, tone), text.endsWith(row.decider) ? null : make("span", { class: "soft" }, `, ${text}`));
  };
  byId("deciders-table").replaceChildren(table([["rule or check"], ["replicas", "number"]],
    counts.map((row) => [cell(row), number(row.count)]),
    { caption: "Replicas by the rule or check that decides", empty: "The account had no replicas." }));
}

function showAges(rows, complete) {
  const bucketOf = (age) => (typeof age === "number" ? AGES.findIndex(([, end]) => age < end) : AGES.length - 1);
  const present = [...new Set([...statusNames(), ...rows.map((row) => row.status)])].filter((status) => rows.some((row) => row.status === status));
  const bars = Object.fromEntries(present.map((status) => [status, AGES.map(() => 0)]));
  rows.forEach((row) => { bars[row.status][bucketOf(row.age)] += 1; });
  const ages = AGES.map(([age]) => age);
  const totals = ages.map((_, bucket) => sum(present.map((status) => bars[status][bucket])));
  chart("ages-chart", `Bars: ${ages.map((age, bucket) => `${age} ${totals[bucket]}`).join(", ")}. The table beside has the numbers.`, {
    legend: true,
    data: {
      labels: ages.map((age) => age.replace(" to ", "–").replace(" and more", "+")),
      datasets: present.map((status) => ({ label: statusLabel(status).text, data: bars[status], backgroundColor: toneColour(statusLabel(status).tone) })),
    },
  });
  const parts = [table([["days old"], ["replicas", "number"], [statusLabel("expired").text, "number"]],
    ages.map((age, bucket) => [age, number(totals[bucket]), number(bars.expired?.[bucket] ?? 0)]).filter((_, bucket) => totals[bucket]),
    { caption: "Replicas by age", empty: "No ages are known." })];
  const known = rows.filter((row) => typeof row.age === "number").length;
  if (!complete || known < rows.length) parts.push(make("p", { class: "empty" }, `The plan has the age of ${number(known)} of ${plural(state.plan.listed, "replica")}.`));
  byId("ages-table").replaceChildren(...parts);
}

function showNextDeletes(plan) {
  const now = [...plan.delete].sort((a, b) => (b.age_days ?? 0) - (a.age_days ?? 0)).slice(0, NEXT_DELETES)
    .map((row) => ({ ...row, status: "expired", when: plan.hard ? "when approved" : "with this plan" }));
  const later = byDueDate(plan.scheduled ?? []).slice(0, NEXT_DELETES)
    .map((row) => ({ ...row, status: "scheduled", when: `${time(row.due_at)}, ${until(row.due_at)}` }));
  const left = plan.delete.length + (plan.scheduled?.length ?? 0) - now.length - later.length;
  const parts = [table([["when", "when"], ["replica", "id"], ["name", "name"], ["age", "number"], ["rule"], ["reason"]],
    [...now, ...later].map((row) => [marked(row.when, statusLabel(row.status).tone), escapeText(row.replica_id), formatName(row.replica_name),
      days(row.age_days), escapeText(row.rule ?? ""), escapeText(row.reason ?? "")]),
    { caption: "The next deletes, the oldest replicas first", empty: "There is nothing to delete." })];
  if (left > 0) parts.push(make("p", { class: "empty" }, `… and ${number(left)} more, in the table below.`));
  byId("next").replaceChildren(...parts);
}

// -- the table of replicas

const COLUMNS = [
  { title: "verdict", key: "order", cell: (row) => marked(statusLabel(row.status).text, statusLabel(row.status).tone) },
  { title: "replica", key: "id", kind: "id", cell: (row) => row.id },
  { title: "name", key: "name", kind: "name", cell: (row) => row.name },
  { title: "age", key: "age", kind: "number", cell: (row) => days(row.age) },
  { title: "rule or check", key: "decider", cell: (row) => row.decider },
  { title: "reason", key: "reason", cell: (row) => row.reason },
  { title: "next reason", key: "nextReason", cell: (row) => row.nextReason || "–" },
];

function showFilters() {
  const selected = byId("verdict").value;
  const present = [...new Set(state.rows.map((row) => row.status))].sort((a, b) => statusNames().indexOf(a) - statusNames().indexOf(b));
  byId("verdict").replaceChildren(make("option", { value: "" }, "all"), ...present.map((status) => make("option", { value: status }, statusLabel(status).text)));
  byId("verdict").value = present.includes(selected) ? selected : "";
}

function matchingRows() {
  const [key, direction] = state.sort;
  const searched = byId("search").value.trim().toLowerCase();
  const status = byId("verdict").value;
  const value = (row) => row[key] ?? -1;
  const compare = (a, b) => (typeof value(a) === "number" ? value(a) - value(b) : String(value(a)).localeCompare(String(value(b))));
  return state.rows.filter((row) => (!status || row.status === status) && (!searched || row.searched.includes(searched)))
    .sort((a, b) => direction * compare(a, b) || (b.age ?? -1) - (a.age ?? -1));
}

function showRows() {
  const found = matchingRows();
  const pages = Math.max(1, Math.ceil(found.length / ROWS_PER_PAGE));
  state.page = Math.min(state.page, pages - 1);
  const from = state.page * ROWS_PER_PAGE;
  const rows = found.slice(from, from + ROWS_PER_PAGE);
  byId("found").textContent = found.length
    ? `${number(from + 1)} to ${number(from + rows.length)} of ${plural(found.length, "replica")}`
    : "No replica matches.";
  const [sorted, direction] = state.sort;
  const head = COLUMNS.map(({ title, key, kind }) => make("th", { scope: "col", class: kind, "aria-sort": key === sorted ? (direction > 0 ? "ascending" : "descending") : "none" },
    make("button", { type: "button", "data-key": key, onclick: () => sortBy(key) }, title, key === sorted ? (direction > 0 ? " ▲" : " ▼") : "")));
  const body = rows.map((row) => make("tr", {}, COLUMNS.map(({ kind, cell }) => make("td", { class: kind, dir: kind === "name" ? "auto" : undefined }, cell(row)))));
  byId("replicas").replaceChildren(rows.length
    ? make("table", {}, make("thead", {}, make("tr", {}, head)), make("tbody", {}, body))
    : make("p", { class: "empty" }, state.rows.length ? "No replica matches the search." : "This plan names no replicas."));
  byId("pages").replaceChildren(...(pages > 1 ? [
    make("button", { type: "button", disabled: state.page === 0, onclick: () => showPage(state.page - 1) }, "Previous"),
    make("span", {}, `Page ${number(state.page + 1)} of ${number(pages)}`),
    make("button", { type: "button", disabled: state.page >= pages - 1, onclick: () => showPage(state.page + 1) }, "Next"),
  ] : []));
}

function sortBy(key) {
  state.sort = [key, state.sort[0] === key ? -state.sort[1] : key === "age" ? -1 : 1];
  state.page = 0;
  showRows();
  byId("replicas").querySelector(`[data-key=${key}]`)?.focus();
}

function showPage(page) {
  state.page = page;
  showRows();
  byId("replicas").scrollTop = 0;
  byId("replicas").focus();
}

// -- reading and showing one plan

function whyNoPlan(plan, task) {
  if (plan?.plan_at) return `This plan is too large for this page. It is stored at ${escapeText(plan.plan_at)}; the log of its plan task has the verdicts.`;
  if (["running", "queued", "scheduled", null].includes(task.state)) return "This plan is being made. Refresh the page in a moment.";
  return "This run has no plan: it failed before it could decide, or its XComs were cleared. See the log of its plan task.";
}

async function showPlan(choice) {
  const request = ++state.request;
  const { run, task } = choice;
  byId("status").textContent = "Reading the plan …";
  byId("content").setAttribute("aria-busy", "true");
  // The plan is small and has all counts. The verdicts can be long, so the first view does not wait for them.
  const reads = [readXCom(task, "verdicts"), run.apply.length === 1 ? readXCom(run.apply[0]) : null];
  reads.forEach((read) => read?.catch(() => {}));
  const plan = await readXCom(task);
  if (request !== state.request) return;
  if (!plan || !Array.isArray(plan.delete)) {
    byId("content").hidden = true;
    byId("status").textContent = whyNoPlan(plan, task);
    return;
  }
  Object.assign(state, { shown: choice, page: 0, sort: ["order", 1], plan, verdicts: null, rows: [] });
  showAbout({ run, task, plan });
  byId("notice").hidden = true;
  byId("replicas").replaceChildren(make("p", { class: "empty" }, "Reading the verdicts …"));
  byId("pages").replaceChildren();
  byId("found").textContent = "";
  byId("content").hidden = false;
  showCharts();

  const [verdicts, report] = await Promise.all(reads);
  if (request !== state.request) return;
  state.verdicts = verdicts;
  state.rows = replicaRows(plan, verdicts);
  if (report?.plan_digest === plan.digest) showAbout({ run, task, plan, report });
  byId("notice").hidden = Boolean(verdictRows(verdicts));
  byId("notice").textContent = `${escapeText(verdicts?.notice ?? "The verdicts of this run are not stored")}. `
    + "The table has the replicas that are to be deleted, scheduled or undetermined.";
  showFilters();
  showRows();
  showCharts();
  byId("content").removeAttribute("aria-busy");
  byId("status").textContent = `Read ${time(new Date().toISOString())}.`;
}

// -- charts and tables that follow the plan and the theme

function showCharts() {
  if (!byId("content").hidden && state.plan) {
    const counts = countReplicas(state.plan, state.verdicts);
    showTiles(state.plan, counts);
    showDeciders(counts);
    showAges(state.rows, Boolean(verdictRows(state.verdicts)));
    showNextDeletes(state.plan);
  }
  if (!byId("history").hidden) showRunsChart();
}

// -- the runs

const runsWithOutcomes = () => state.runs.filter((run) => run.outcomes);

function showRunsChart() {
  const runs = runsWithOutcomes().reverse();
  const present = outcomeNames().filter((outcome) => runs.some((run) => run.outcomes.counts[outcome]));
  byId("runs-chart").parentElement.hidden = !present.length;
  chart("runs-chart", `Bars: outcomes of the last ${plural(runs.length, "run")}. The table below has the numbers.`, {
    legend: true,
    data: {
      labels: runs.map((run) => time(run.when).slice(5, 16)),
      datasets: present.map((outcome) => ({ label: outcomeLabel(outcome).text, backgroundColor: toneColour(outcomeLabel(outcome).tone), data: runs.map((run) => run.outcomes.counts[outcome] ?? 0) })),
    },
  });
}

function runState(run) {
  const tasks = [...run.plan, ...run.approve, ...run.apply, ...run.delete];
  if (tasks.some((task) => task.state === "failed")) return ["failed", "danger"];
  if (run.approve.some(waitsForApproval)) return ["waits for approval", "warning"];
  if (tasks.some((task) => ["running", "queued", "scheduled", "up_for_retry", null].includes(task.state))) return ["running", "info"];
  return run.outcomes.dryRun ? ["success, dry run", "good-soft"] : ["success", "good"];
}

function showRuns() {
  byId("history").hidden = false;
  byId("older").hidden = !state.more && runsWithOutcomes().length === state.runs.length;
  showRunsChart();
  const columns = outcomeGroups();
  const duration = (run) => {
    const tasks = [...run.plan, ...run.apply, ...run.delete].filter((task) => typeof task.duration === "number");
    return tasks.length ? seconds(sum(tasks.map((task) => task.duration))) : "–";
  };
  byId("runs").replaceChildren(table(
    [["run"], ["state"], ["planned", "number"], ...columns.map(({ group }) => [group, "number"]), ["duration", "number"], ["approval"]],
    runsWithOutcomes().map((run) => [
      link(runPath(run), `${time(run.when)}, ${escapeText(run.dag_id)}`), marked(...runState(run)), number(run.outcomes.planned),
      ...columns.map(({ names }) => number(sum(names.map((name) => run.outcomes.counts[name] ?? 0)))),
      duration(run),
      run.approve.filter((task) => task.state !== "skipped").slice(0, 1).map((task) => link(`${taskPath(task)}/required_actions`, "open")),
    ]),
    { caption: "The last runs", empty: "There are no runs yet." }));
}

async function readRuns() {
  await readOutcomes(state.runs.filter((run) => !run.outcomes).slice(0, RUNS_PER_READ));
  showRuns();
}

async function readMoreTasks() {
  const { tasks, more } = await readLatestTasks(state.offset);
  state.offset += tasks.length;
  state.more = more;
  state.runs = addTasks(state.runs, tasks);
}

// -- choosing a plan

const plansOf = (runs) => runs.flatMap((run) => run.plan.map((task) => ({ run, task })));

// The run in the address: of the page around this one, which a task's link opens, or of this page.
function requestedRun() {
  let outer = "";
  try {
    outer = window.parent.location.search;
  } catch { /* the page around this one has another origin */ }
  const query = new URLSearchParams(location.search || outer);
  if (!query.get("dag_id") || !query.get("run_id")) return null;
  history.replaceState(null, "", `?${query}`);
  return { dag_id: query.get("dag_id"), dag_run_id: query.get("run_id"), task_id: query.get("task_id"), map_index: query.get("map_index") };
}

function choosePlan(requested) {
  const plans = plansOf(state.runs);
  const ofRun = ({ task }) => requested && task.dag_id === requested.dag_id && task.dag_run_id === requested.dag_run_id;
  return plans.find((plan) => ofRun(plan) && plan.task.task_id === requested.task_id && String(plan.task.map_index) === requested.map_index)
    ?? plans.find(ofRun) ?? plans.find(({ task }) => task.state === "success") ?? plans[0];
}

function showPlanChoice(shown) {
  const plans = plansOf(state.runs);
  const name = ({ run, task }) => {
    const mapped = task.map_index >= 0 ? escapeText(task.rendered_map_index ?? task.map_index) : "";
    const which = run.plan.length > 1 ? ` / ${escapeText(task.task_id)} ${mapped}` : "";
    return `${time(run.when)}  ${escapeText(run.dag_id)}${which}  ${task.state ?? ""}`;
  };
  byId("plans").replaceChildren(...plans.map((plan, at) => make("option", { value: at }, name(plan))));
  byId("plans").disabled = plans.length < 2;
  byId("plans").parentElement.hidden = !plans.length;
  byId("plans").value = String(plans.findIndex(({ task }) => task.id === shown?.task.id));
}

function showNoPlan() {
  byId("content").hidden = true;
  byId("status").textContent = "";
  byId("problem").className = "note";
  byId("problem").replaceChildren(
    make("p", {}, "No plan has been made yet, or none in a DAG that you may read."),
    make("p", {}, "This page shows what tasks with PlanRetentionOperator and ApplyRetentionOperator have pushed. Trigger ",
      "tavus_prune_replicas with Dry run on, then refresh this page. ", link("dags?tags=tavus", "Open the DAGs tagged tavus")));
  byId("problem").hidden = false;
}

function showError(error) {
  const text = error instanceof PageError ? error.message : "This page failed. The console of the browser has the details.";
  if (!(error instanceof PageError)) console.error(error);
  byId("status").textContent = "";
  byId("problem").className = "note bad";
  byId("problem").replaceChildren(make("p", {}, text), make("button", { type: "button", onclick: start }, "Try again"));
  byId("problem").hidden = false;
}

async function start() {
  byId("problem").hidden = true;
  byId("refresh").disabled = true;
  byId("status").textContent = "Reading the last runs …";
  try {
    Object.assign(state, { runs: [], offset: 0, more: false });
    const requested = requestedRun();
    await loadLabels();
    await readMoreTasks();
    if (requested && !state.runs.some((run) => run.dag_id === requested.dag_id && run.dag_run_id === requested.dag_run_id)) {
      state.runs = addTasks(state.runs, await readTasksOfRun(requested));
    }
    const choice = choosePlan(requested);
    showPlanChoice(choice);
    if (choice) await showPlan(choice);
    else showNoPlan();
    if (state.runs.length) await readRuns();
  } catch (error) {
    showError(error);
  } finally {
    byId("refresh").disabled = false;
  }
}

function followTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  let outer = null;
  try {
    outer = window.parent === window ? null : window.parent.document;
  } catch { /* the page around this one has another origin */ }
  const apply = () => {
    const classes = outer?.documentElement.classList;
    const dark = classes?.contains("dark") ? true : classes?.contains("light") ? false : system.matches;
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    showCharts();
  };
  system.addEventListener("change", apply);
  if (outer) new MutationObserver(apply).observe(outer.documentElement, { attributeFilter: ["class"] });
  apply();
}

byId("refresh").addEventListener("click", start);
byId("plans").addEventListener("change", () => {
  const choice = plansOf(state.runs)[Number(byId("plans").value)];
  const { dag_id, dag_run_id, task_id, map_index } = choice.task;
  history.replaceState(null, "", `?${new URLSearchParams({ dag_id, run_id: dag_run_id, task_id, map_index })}`);
  showPlan(choice).catch(showError);
});
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("filters").addEventListener("input", () => {
  state.page = 0;
  showRows();
});
byId("older").addEventListener("click", async () => {
  byId("older").disabled = true;
  try {
    if (state.more && runsWithOutcomes().length === state.runs.length) await readMoreTasks();
    await readRuns();
    showPlanChoice(state.shown);
  } catch (error) {
    showError(error);
  } finally {
    byId("older").disabled = false;
  }
});
followTheme();
start();
