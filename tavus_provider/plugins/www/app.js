// The Tavus page: what plan and apply tasks have pushed, read through Airflow's public REST API with the
// session of whoever looks, so that it shows nothing that Airflow would not. It never calls Tavus.
// Names come from outside: everything is put in as text, never as HTML.

const API = new URL("../api/v2/", location.href);
const AIRFLOW = new URL("../", location.href);
const OPERATORS = {
  plan: "PlanRetentionOperator",
  approve: "ApproveRetentionOperator",
  apply: "ApplyRetentionOperator",
  delete: "DeleteReplicaOperator",
};
const TASKS_PER_READ = 100;
const RUNS_AT_ONCE = 15;
const ROWS = 100;
const NEXT = 6;
const DAY = 86_400_000;

const RUNGS = {
  expired: ["goes", "--tone-danger"],
  scheduled: ["scheduled", "--tone-warning"],
  held: ["held", "--tone-hold"],
  undetermined: ["in doubt, kept", "--tone-unclear"],
  kept: ["kept by a guard", "--tone-info"],
  not_expired: ["not expired", "--tone-good"],
  out_of_scope: ["outside scope", "--tone-muted"],
};
const OUTCOMES = {
  deleted: ["deleted", "--tone-good"],
  confirmed: ["confirmed", "--tone-good-soft"],
  already_gone: ["already gone", "--tone-info"],
  skipped: ["skipped", "--tone-muted"],
  failed: ["failed", "--tone-warning"],
  unknown: ["unknown", "--tone-danger"],
  not_attempted: ["not attempted", "--tone-hold"],
};
const AGES = [["0 to 6", 7], ["7 to 29", 30], ["30 to 89", 90], ["90 to 179", 180], ["180 to 364", 365], ["365 and more", Infinity], ["unknown", NaN]];

const $ = (id) => document.getElementById(id);
const state = { runs: [], offset: 0, more: false, shown: null, rows: [], sort: ["status", 1], page: 0, charts: {}, turn: 0 };

// -- Airflow's API

class Problem extends Error {}

async function api(path, { missing } = {}) {
  let answer;
  try {
    answer = await fetch(new URL(path, API), { headers: { Accept: "application/json" }, credentials: "same-origin" });
  } catch {
    throw new Problem("Airflow did not answer. Is the network there?");
  }
  if (answer.status === 404 && missing !== undefined) return missing;
  if (answer.status === 401) throw new Problem("You are not signed in to Airflow, so there is nothing to show. Sign in, then reload this page.");
  if (answer.status === 403) throw new Problem("Your Airflow role may not read this: it takes the right to read task instances and XComs of the DAGs that use Tavus.");
  if (!answer.ok) throw new Problem(`Airflow answered ${answer.status} to GET ${path.split("?")[0]}.`);
  return answer.json();
}

const segment = encodeURIComponent;
const instance = (ti) => `dags/${segment(ti.dag_id)}/dagRuns/${segment(ti.dag_run_id)}/taskInstances/${segment(ti.task_id)}`;

async function xcom(ti, key = "return_value") {
  if (!["success", "failed", "running"].includes(ti.state)) return null;
  const entry = await api(`${instance(ti)}/xcomEntries/${segment(key)}?map_index=${ti.map_index}`, { missing: null });
  const value = entry?.value ?? null;
  try {
    return typeof value === "string" ? JSON.parse(value) : value;
  } catch {
    return null;
  }
}

// Any DAG that uses the operators counts: tasks are found by the class of their operator.
async function readTasks(where, offset) {
  const query = new URLSearchParams({ limit: TASKS_PER_READ, offset, order_by: "-run_after" });
  Object.values(OPERATORS).forEach((name) => query.append("operator", name));
  return api(`${where}/taskInstances?${query}`);
}

function intoRuns(tasks, runs) {
  const known = new Map(runs.map((run) => [`${run.dag_id} ${run.dag_run_id}`, run]));
  for (const ti of tasks) {
    const id = `${ti.dag_id} ${ti.dag_run_id}`;
    const kind = Object.keys(OPERATORS).find((name) => OPERATORS[name] === (ti.operator_name ?? ti.operator));
    if (!kind) continue;
    if (!known.has(id)) {
      known.set(id, { dag_id: ti.dag_id, dag_run_id: ti.dag_run_id, when: ti.run_after, plan: [], approve: [], apply: [], delete: [] });
    }
    const run = known.get(id);
    if (!run[kind].some((one) => one.id === ti.id)) run[kind].push(ti);
  }
  return [...known.values()].sort((a, b) => (a.when < b.when ? 1 : -1));
}

async function readMoreRuns() {
  const read = await readTasks("dags/~/dagRuns/~", state.offset);
  state.offset += read.task_instances.length;
  state.more = state.offset < read.total_entries && read.task_instances.length > 0;
  state.runs = intoRuns(read.task_instances, state.runs);
}

async function inTurns(items, work) {
  const waiting = [...items];
  await Promise.all(Array.from({ length: 4 }, async () => {
    while (waiting.length) await work(waiting.shift());
  }));
}

async function readOutcomes(run) {
  if (run.outcomes) return;
  const counts = {};
  let planned = 0;
  let dry = false;
  for (const ti of run.apply) {
    const report = await xcom(ti);
    if (!report?.counts) continue;
    dry = dry || report.dry_run === true;
    planned += Array.isArray(report.items) ? report.items.length : 0;
    for (const [name, count] of Object.entries(report.counts)) counts[name] = (counts[name] ?? 0) + count;
  }
  for (const ti of run.delete.filter((one) => one.state === "success").slice(0, 50)) {
    const done = await xcom(ti);
    if (!done?.outcome) continue;
    planned += 1;
    counts[done.outcome] = (counts[done.outcome] ?? 0) + 1;
  }
  if (!planned && !run.delete.length) {
    for (const ti of run.plan) planned += (await xcom(ti))?.delete?.length ?? 0;
  }
  run.outcomes = { planned, counts, dry };
}

// -- text

// What would turn, hide or break a line is shown as what it is.
const plain = (text) => String(text).replace(
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]/gu,
  (mark) => `\\u${mark.codePointAt(0).toString(16).padStart(4, "0")}`,
);
const number = (value) => (typeof value === "number" ? value.toLocaleString("en") : "–");
const plural = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;
const days = (value) => (typeof value === "number" ? `${number(value)} d` : "–");
const time = (text) => {
  const at = new Date(text);
  return text && !Number.isNaN(at.getTime()) ? `${at.toISOString().slice(0, 16).replace("T", " ")} UTC` : "–";
};
const until = (text) => {
  const left = Math.ceil((new Date(text) - Date.now()) / DAY);
  if (Number.isNaN(left)) return "";
  return left > 0 ? `in ${plural(left, "day")}` : "due now";
};
const seconds = (value) => {
  if (typeof value !== "number") return "–";
  return value < 90 ? `${value.toFixed(value < 10 ? 1 : 0)} s` : `${number(Math.round(value / 60))} min`;
};
const rungOf = (name) => RUNGS[name] ?? [plain(name ?? "unknown"), "--tone-unclear"];

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "mark") node.style.setProperty("--mark", `var(${value})`);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

function table(head, rows, { caption, empty }) {
  if (!rows.length) return make("p", { class: "empty" }, empty);
  return make("table", {}, make("caption", { hidden: true }, caption),
    make("thead", {}, make("tr", {}, head.map(([text, kind]) => make("th", { scope: "col", class: kind }, text)))),
    make("tbody", {}, rows.map((cells) => make("tr", {}, cells.map((cell, at) => make("td", { class: head[at][1] }, cell))))));
}

const marked = (text, colour) => make("span", {}, make("span", { class: "mark", mark: colour, "aria-hidden": "true" }), text);

// Airflow shows this page in a frame that may not open or leave pages; a link of the page around it may.
function link(path, text) {
  const go = (event) => {
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
    } catch { /* a page of another origin is around this one: the plain link is all there is */ }
  };
  return make("a", { href: new URL(path, AIRFLOW).href, onclick: go, onauxclick: go }, text);
}
const runPath = (run) => `dags/${segment(run.dag_id)}/runs/${segment(run.dag_run_id)}`;
const taskPath = (ti) => `${runPath(ti)}/tasks/${segment(ti.task_id)}${ti.map_index >= 0 ? `/mapped/${ti.map_index}` : ""}`;

// -- charts: Chart.js, shipped beside this file; each has its numbers in a table next to it

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function chart(id, label, config) {
  $(id).setAttribute("aria-label", label);
  state.charts[id]?.destroy();
  const text = colour("--soft");
  const line = colour("--line");
  const axis = (more) => ({ ticks: { color: text, precision: 0 }, grid: { color: line }, border: { color: line }, stacked: true, ...more });
  state.charts[id] = new window.Chart($(id), {
    type: "bar",
    data: config.data,
    options: {
      animation: false,
      responsive: true,
      maintainAspectRatio: false,
      indexAxis: config.flat ? "y" : "x",
      scales: { x: axis(config.flat ? { beginAtZero: true } : { grid: { display: false } }), y: axis(config.flat ? { grid: { display: false } } : { beginAtZero: true }) },
      plugins: { legend: { display: config.legend ?? false, position: "bottom", labels: { color: text, boxWidth: 12 } } },
      maxBarThickness: 34,
    },
  });
}

// -- the shown plan

function countsOf(plan, verdicts) {
  if (Array.isArray(verdicts)) {
    const byWord = new Map();
    for (const row of state.rows) {
      const word = row.status === "expired" && row.reason_code ? `rule ${row.reason_code}` : row.reason_code || row.status || "unknown";
      const key = `${row.status} ${word}`;
      if (!byWord.has(key)) byWord.set(key, { rung: row.status, word, count: 0 });
      byWord.get(key).count += 1;
    }
    return [...byWord.values()].sort((a, b) => b.count - a.count);
  }
  const counts = verdicts?.counts ?? {
    expired: plan.delete?.length ?? 0, scheduled: plan.scheduled?.length ?? 0,
    undetermined: plan.undetermined?.length ?? 0, ...plan.keep,
  };
  return Object.entries(counts).filter(([, count]) => count > 0)
    .map(([word, count]) => ({ rung: RUNGS[word] ? word : "kept", word, count })).sort((a, b) => b.count - a.count);
}

function rowsOf(plan, verdicts) {
  const planned = new Map((plan.delete ?? []).map((row) => [row.replica_id, row]));
  const scheduled = new Map((plan.scheduled ?? []).map((row) => [row.replica_id, row]));
  const rows = Array.isArray(verdicts) ? verdicts : [
    ...(plan.delete ?? []).map((row) => ({ ...row, rung: "expired", word: row.rule })),
    ...(plan.scheduled ?? []).map((row) => ({ ...row, rung: "scheduled", word: row.rule })),
    ...(plan.undetermined ?? []).map((row) => ({ ...row, rung: "undetermined" })),
  ];
  const order = Object.keys(RUNGS);
  return rows.map((row) => {
    const more = planned.get(row.replica_id) ?? scheduled.get(row.replica_id) ?? {};
    const name = row.replica_name ?? more.replica_name;
    const clean = {
      id: plain(row.replica_id ?? ""),
      name: name === null || name === undefined ? "(no name)" : plain(name),
      rung: row.status,
      verdict: rungOf(row.status)[0],
      order: order.indexOf(row.status),
      word: plain(more.rule ?? row.reason_code ?? ""),
      reason: plain(row.reason ?? ""),
      against: plain(row.next_reason ?? ""),
      age: typeof row.age_days === "number" ? row.age_days : more.age_days ?? null,
      due: more.due_at ?? null,
    };
    clean.haystack = `${clean.id} ${clean.name} ${clean.reason} ${clean.against} ${clean.reason_code}`.toLowerCase();
    return clean;
  });
}

function showAbout({ run, ti, plan, report }) {
  const limits = plan.limits ?? {};
  const going = plan.delete?.length ?? 0;
  const waiting = run.approve.find((one) => ["awaiting_input", "deferred"].includes(one.state));
  const parts = [
    make("p", {}, "Made ", time(plan.made_at), " by ", link(taskPath(ti), plain(`${ti.dag_id} / ${ti.task_id}`)),
      `, connection ${plain(plan.tavus_conn_id ?? "–")} (${plain(plan.origin ?? "–")}), policy ${plain(plan.policy?.name ?? "–")}, `,
      plan.hard ? make("strong", {}, "permanent deletes") : "soft deletes", ". ", link(runPath(run), "Open the run")),
    make("p", { class: "soft" }, `Limits: ${plural(going, "replica")} of at most ${number(limits.max_deletions)}, `,
      `${plan.listed ? ((100 * going) / plan.listed).toFixed(1) : 0} % of the account of at most ${number(limits.max_deletion_percent)} %. `,
      `Good until ${time(plan.valid_until)}. Digest `, make("code", {}, plain(plan.digest ?? "–").slice(0, 16)), "…"),
  ];
  const over = going > limits.max_deletions || 100 * going > limits.max_deletion_percent * plan.listed;
  if (over) parts.push(make("p", { class: "note bad" }, "This is more than the limits allow: a real run stops before its first delete."));
  if (ti.state === "failed") parts.push(make("p", { class: "note bad" }, "The plan task failed, so nothing was deleted: see its log."));
  if (waiting) parts.push(make("p", { class: "note" }, "This plan waits for a person. ", link(`${taskPath(waiting)}/required_actions`, "Open its approval")));
  if (report?.counts) {
    const said = Object.entries(report.counts).filter(([, count]) => count).map(([name, count]) => `${number(count)} ${OUTCOMES[name]?.[0] ?? plain(name)}`);
    parts.push(make("p", { class: "note" }, report.dry_run ? "Dry run, nothing was sent: " : "Carried out: ", said.join(", ") || "nothing to do", "."));
  }
  $("about").replaceChildren(...parts);
}

function showTiles(plan, counts) {
  const sum = (...rungs) => counts.filter((one) => rungs.includes(one.status)).reduce((all, one) => all + one.count, 0);
  const next = [...(plan.scheduled ?? [])].sort((a, b) => (a.due_at > b.due_at ? 1 : -1))[0];
  const tiles = [
    [number(plan.listed), "replicas in the account", null],
    [number(plan.delete?.length ?? 0), "go with this plan", "expired"],
    [number(plan.scheduled?.length ?? 0), next ? `scheduled, the next ${until(next.due_at)}` : "scheduled", "scheduled"],
    [number(sum("kept", "not_expired", "out_of_scope")), "kept", null],
    [number(sum("held")), "held", "held"],
    [number(sum("undetermined")), "in doubt, kept", "undetermined"],
  ];
  $("tiles").replaceChildren(...tiles.map(([value, text, rung]) => make("li", {}, rung
    ? make("button", { type: "button", mark: RUNGS[rung][1], title: "Show these in the table", onclick: () => pick(rung) },
      make("strong", {}, value), make("span", {}, text))
    : make("div", {}, make("strong", {}, value), make("span", {}, text)))));
}

function pick(rung) {
  $("verdict").value = rung;
  state.page = 0;
  showRows();
  $("replicas").focus();
}

function decider({ word, rung }) {
  const [verdict, mark] = rungOf(rung);
  const text = plain(word).replaceAll("_", " ");
  return make("span", {}, marked(text, mark), !["expired", "scheduled", "held"].includes(rung) || text === verdict || text === rung ? "" : make("span", { class: "soft" }, `, ${verdict}`));
}

function showDecides(counts) {
  const shown = counts.slice(0, 9);
  const rest = counts.slice(9).reduce((all, one) => all + one.count, 0);
  if (rest) shown.push({ rung: "kept", word: "others", count: rest });
  const words = shown.map((one) => plain(one.reason_code).replaceAll("_", " "));
  chart("decides-chart", `Bars: ${shown.map((one, at) => `${words[at]} ${one.count}`).join(", ")}. The table beside has the numbers.`, {
    flat: true,
    data: { labels: words, datasets: [{ data: shown.map((one) => one.count), backgroundColor: shown.map((one) => colour(rungOf(one.status)[1])), label: "replicas" }] },
  });
  $("decides-table").replaceChildren(table([["rule or guard"], ["replicas", "number"]],
    counts.map((one) => [decider(one), number(one.count)]),
    { caption: "Replicas by what decides about them", empty: "The account had no replicas." }));
}

function showAges(rows, complete) {
  const at = (age) => (typeof age === "number" ? AGES.findIndex(([, end]) => age < end) : AGES.length - 1);
  const kinds = ["expired", "scheduled", "held", "kept", "not_expired", "out_of_scope", "undetermined"]
    .filter((rung) => rows.some((row) => row.status === rung));
  const bars = Object.fromEntries(kinds.map((rung) => [rung, AGES.map(() => 0)]));
  rows.forEach((row) => { if (bars[row.status]) bars[row.status][at(row.age)] += 1; });
  const labels = AGES.map(([label]) => label);
  const totals = labels.map((_, bucket) => kinds.reduce((all, rung) => all + bars[rung][bucket], 0));
  const goes = labels.map((_, bucket) => bars.expired?.[bucket] ?? 0);
  chart("ages-chart", `Bars: ${labels.map((label, bucket) => `${label} ${totals[bucket]}`).join(", ")}. The table beside has the numbers.`, {
    legend: true,
    data: { labels: labels.map((label) => label.replace(" to ", "–").replace(" and more", "+")), datasets: kinds.map((rung) => ({ label: rungOf(rung)[0], data: bars[rung], backgroundColor: colour(rungOf(rung)[1]) })) },
  });
  const parts = [table([["age in days"], ["replicas", "number"], ["go", "number"]],
    labels.map((label, bucket) => [label, number(totals[bucket]), number(goes[bucket])]).filter((_, bucket) => totals[bucket]),
    { caption: "Replicas by age", empty: "No ages are known." })];
  const known = rows.filter((row) => typeof row.age === "number").length;
  if (!complete || known < rows.length) parts.push(make("p", { class: "empty" }, `The plan says the age of ${number(known)} of ${plural(state.plan.listed, "replica")}.`));
  $("ages-table").replaceChildren(...parts);
}

function showNext(plan) {
  const going = [...(plan.delete ?? [])].sort((a, b) => (b.age_days ?? 0) - (a.age_days ?? 0)).slice(0, NEXT)
    .map((row) => ({ ...row, when: plan.hard ? "when approved" : "with this plan", colour: "--tone-danger" }));
  const later = [...(plan.scheduled ?? [])].sort((a, b) => (a.due_at > b.due_at ? 1 : -1)).slice(0, NEXT)
    .map((row) => ({ ...row, when: `${time(row.due_at)}, ${until(row.due_at)}`, colour: "--tone-warning" }));
  const left = (plan.delete?.length ?? 0) + (plan.scheduled?.length ?? 0) - going.length - later.length;
  const parts = [table([["when", "when"], ["replica", "id"], ["name", "name"], ["age", "number"], ["rule"], ["why"]],
    [...going, ...later].map((row) => [marked(row.when, row.colour), plain(row.replica_id), plain(row.replica_name ?? "(no name)"),
      days(row.age_days), plain(row.rule ?? ""), plain(row.reason ?? "")]),
    { caption: "What goes next, the oldest first", empty: "Nothing is to go." })];
  if (left > 0) parts.push(make("p", { class: "empty" }, `… and ${number(left)} more, in the table below.`));
  $("next").replaceChildren(...parts);
}

function showFilters() {
  const seen = Object.keys(RUNGS).filter((rung) => state.rows.some((row) => row.status === rung));
  const before = $("verdict").value;
  $("verdict").replaceChildren(make("option", { value: "" }, "all"), ...seen.map((rung) => make("option", { value: rung }, RUNGS[rung][0])));
  $("verdict").value = seen.includes(before) ? before : "";
}

const COLUMNS = [["verdict", "order", ""], ["replica", "id", "id"], ["name", "name", "name"], ["age", "age", "number"],
  ["rule or guard", "reason_code", ""], ["why", "reason", ""], ["what speaks against", "against", ""]];

function showRows() {
  const [key, way] = state.sort;
  const wanted = $("search").value.trim().toLowerCase();
  const rung = $("verdict").value;
  const found = state.rows.filter((row) => (!rung || row.status === rung) && (!wanted || row.haystack.includes(wanted)));
  const value = (row) => row[key] ?? -1;
  found.sort((a, b) => way * (typeof value(a) === "number" ? value(a) - value(b) : String(value(a)).localeCompare(String(value(b)))) || (b.age ?? -1) - (a.age ?? -1));
  const pages = Math.max(1, Math.ceil(found.length / ROWS));
  state.page = Math.min(state.page, pages - 1);
  const from = state.page * ROWS;
  const rows = found.slice(from, from + ROWS);
  $("found").textContent = found.length
    ? `${number(from + 1)} to ${number(from + rows.length)} of ${plural(found.length, "replica")}`
    : "No replica fits.";
  const head = COLUMNS.map(([text, by, kind]) => make("th", { scope: "col", class: kind, "aria-sort": by === key ? (way > 0 ? "ascending" : "descending") : "none" },
    make("button", { type: "button", "data-by": by, onclick: () => sortBy(by) }, text, by === key ? (way > 0 ? " ▲" : " ▼") : "")));
  const body = rows.map((row) => make("tr", {},
    make("td", {}, marked(row.verdict, rungOf(row.status)[1])), make("td", { class: "id" }, row.id), make("td", { class: "name", dir: "auto" }, row.name),
    make("td", { class: "number" }, days(row.age)), make("td", {}, row.reason_code.replaceAll("_", " ")), make("td", {}, row.reason), make("td", {}, row.against || "–")));
  $("replicas").replaceChildren(rows.length
    ? make("table", {}, make("thead", {}, make("tr", {}, head)), make("tbody", {}, body))
    : make("p", { class: "empty" }, state.rows.length ? "No replica fits the search." : "This plan names no replicas."));
  $("pages").replaceChildren(...(pages > 1 ? [
    make("button", { type: "button", disabled: state.page === 0, onclick: () => turnTo(state.page - 1) }, "Previous"),
    make("span", {}, `Page ${number(state.page + 1)} of ${number(pages)}`),
    make("button", { type: "button", disabled: state.page >= pages - 1, onclick: () => turnTo(state.page + 1) }, "Next"),
  ] : []));
}

function sortBy(by) {
  state.sort = [by, state.sort[0] === by ? -state.sort[1] : by === "age" ? -1 : 1];
  state.page = 0;
  showRows();
  $("replicas").querySelector(`[data-by=${by}]`)?.focus();
}

function turnTo(page) {
  state.page = page;
  showRows();
  $("replicas").scrollTop = 0;
  $("replicas").focus();
}

async function showPlan(choice) {
  const turn = ++state.turn;
  const { run, ti } = choice;
  $("status").textContent = "Reading the plan …";
  $("content").setAttribute("aria-busy", "true");
  // The plan is small and has all counts; the verdicts may be long, so the first picture does not wait for them.
  const reading = [xcom(ti, "verdicts"), run.apply.length === 1 ? xcom(run.apply[0]) : null];
  reading.forEach((one) => one?.catch(() => {}));
  const plan = await xcom(ti);
  if (turn !== state.turn) return;
  if (!plan || !Array.isArray(plan.delete)) {
    $("content").hidden = true;
    $("status").textContent = ["running", "queued", "scheduled", null].includes(ti.state)
      ? "This plan is being made: refresh in a moment."
      : "This run left no plan: it failed before it could decide, or its XComs were cleared. See the log of its plan task.";
    return;
  }
  Object.assign(state, { shown: choice, page: 0, sort: ["order", 1], plan, verdicts: null, rows: [] });
  showAbout({ run, ti, plan });
  $("notice").hidden = true;
  $("replicas").replaceChildren(make("p", { class: "empty" }, "Reading the verdicts …"));
  $("pages").replaceChildren();
  $("found").textContent = "";
  $("content").hidden = false;
  showPictures();

  const [verdicts, report] = await Promise.all(reading);
  if (turn !== state.turn) return;
  state.verdicts = verdicts;
  state.rows = rowsOf(plan, verdicts);
  if (report?.plan_digest === plan.digest) showAbout({ run, ti, plan, report });
  $("notice").hidden = Array.isArray(verdicts);
  $("notice").textContent = verdicts?.notice
    ? `${plain(verdicts.notice)}. The table has those that go, are scheduled or are in doubt.`
    : "The verdicts of this run are not stored: the table has those that go, are scheduled or are in doubt.";
  showFilters();
  showRows();
  showPictures();
  $("content").removeAttribute("aria-busy");
  $("status").textContent = `Read ${time(new Date().toISOString())}.`;
}

function showPictures() {
  if (!$("content").hidden && state.plan) {
    const counts = countsOf(state.plan, state.verdicts);
    showTiles(state.plan, counts);
    showDecides(counts);
    showAges(state.rows, Array.isArray(state.verdicts));
    showNext(state.plan);
  }
  if (!$("history").hidden) showRunsChart();
}

// -- the history

const withOutcomes = () => state.runs.filter((run) => run.outcomes);

function showRunsChart() {
  const runs = withOutcomes().reverse();
  const names = Object.keys(OUTCOMES).filter((name) => runs.some((run) => run.outcomes.counts[name]));
  $("runs-chart").parentElement.hidden = !names.length;
  chart("runs-chart", `Bars: outcomes of the last ${plural(runs.length, "run")}. The table below has the numbers.`, {
    legend: true,
    data: {
      labels: runs.map((run) => time(run.when).slice(5, 16)),
      datasets: names.map((name) => ({ label: OUTCOMES[name][0], backgroundColor: colour(OUTCOMES[name][1]), data: runs.map((run) => run.outcomes.counts[name] ?? 0) })),
    },
  });
}

function stateOf(run) {
  const tasks = [...run.plan, ...run.approve, ...run.apply, ...run.delete];
  if (tasks.some((ti) => ti.state === "failed")) return ["red", "--tone-danger"];
  if (run.approve.some((ti) => ["awaiting_input", "deferred"].includes(ti.state))) return ["waits for approval", "--tone-warning"];
  if (tasks.some((ti) => ["running", "queued", "scheduled", "up_for_retry", null].includes(ti.state))) return ["under way", "--tone-info"];
  return run.outcomes.dry ? ["green, dry run", "--tone-good-soft"] : ["green", "--tone-good"];
}

function showHistory() {
  $("history").hidden = false;
  $("older").hidden = !state.more && withOutcomes().length === state.runs.length;
  showRunsChart();
  const count = (run, ...names) => number(names.reduce((all, name) => all + (run.outcomes.counts[name] ?? 0), 0));
  $("runs").replaceChildren(table(
    [["run"], ["state"], ["planned", "number"], ["deleted", "number"], ["already gone", "number"], ["skipped", "number"], ["failed", "number"],
      ["unknown", "number"], ["not attempted", "number"], ["time taken", "number"], ["approval"]],
    withOutcomes().map((run) => {
      const tasks = [...run.plan, ...run.apply, ...run.delete].filter((ti) => typeof ti.duration === "number");
      return [link(runPath(run), `${time(run.when)}, ${plain(run.dag_id)}`), marked(...stateOf(run)), number(run.outcomes.planned),
        count(run, "deleted", "confirmed"), count(run, "already_gone"), count(run, "skipped"), count(run, "failed"), count(run, "unknown"),
        count(run, "not_attempted"), tasks.length ? seconds(tasks.reduce((all, ti) => all + ti.duration, 0)) : "–",
        run.approve.filter((ti) => ti.state !== "skipped").slice(0, 1).map((ti) => link(`${taskPath(ti)}/required_actions`, "open"))];
    }),
    { caption: "The last runs", empty: "No run yet." }));
}

async function readHistory() {
  const turn = state.turn;
  await inTurns(state.runs.filter((run) => !run.outcomes).slice(0, RUNS_AT_ONCE), readOutcomes);
  if (turn <= state.turn) showHistory();
}

// -- together

const plansOf = (runs) => runs.flatMap((run) => run.plan.map((ti) => ({ run, ti })));

function wanted() {
  // A link to the page of one run carries it in the address of the page around this one, or in ours.
  let outer = "";
  try {
    outer = window.parent.location.search;
  } catch { /* another origin */ }
  const query = new URLSearchParams(location.search || outer);
  if (!query.get("dag_id") || !query.get("run_id")) return null;
  history.replaceState(null, "", `?${query}`);
  return { dag_id: query.get("dag_id"), dag_run_id: query.get("run_id"), task_id: query.get("task_id"), map_index: query.get("map_index") };
}

function fillPlans(shown) {
  const plans = plansOf(state.runs);
  $("plans").replaceChildren(...plans.map(({ run, ti }, at) => make("option", { value: at },
    `${time(run.when)}  ${plain(run.dag_id)}${run.plan.length > 1 ? ` / ${plain(ti.task_id)} ${ti.map_index >= 0 ? plain(ti.rendered_map_index ?? ti.map_index) : ""}` : ""}  ${ti.state ?? ""}`)));
  $("plans").disabled = plans.length < 2;
  $("plans").parentElement.hidden = !plans.length;
  $("plans").value = String(plans.findIndex(({ ti }) => ti.id === shown?.ti.id));
}

function complain(error) {
  const text = error instanceof Problem ? error.message : "This page met something it does not understand; the console has the details.";
  if (!(error instanceof Problem)) console.error(error);
  $("status").textContent = "";
  $("problem").replaceChildren(make("p", {}, text), make("button", { type: "button", onclick: start }, "Try again"));
  $("problem").hidden = false;
}

async function start() {
  $("problem").hidden = true;
  $("refresh").disabled = true;
  $("status").textContent = "Reading what the last runs have pushed …";
  try {
    Object.assign(state, { runs: [], offset: 0, more: false });
    const asked = wanted();
    await readMoreRuns();
    if (asked && !state.runs.some((run) => run.dag_id === asked.dag_id && run.dag_run_id === asked.dag_run_id)) {
      const one = await readTasks(`dags/${segment(asked.dag_id)}/dagRuns/${segment(asked.dag_run_id)}`, 0);
      state.runs = intoRuns(one.task_instances, state.runs);
    }
    const plans = plansOf(state.runs);
    const fits = ({ ti }) => asked && ti.dag_id === asked.dag_id && ti.dag_run_id === asked.dag_run_id;
    const choice = plans.find((one) => fits(one) && one.ti.task_id === asked.task_id && String(one.ti.map_index) === asked.map_index)
      ?? plans.find(fits) ?? plans.find(({ ti }) => ti.state === "success") ?? plans[0];
    fillPlans(choice);
    if (choice) {
      await showPlan(choice);
    } else {
      $("content").hidden = true;
      $("status").textContent = "";
      $("problem").className = "note";
      $("problem").replaceChildren(
        make("p", {}, "No plan has been made yet, or none in a DAG that you may read."),
        make("p", {}, "This page shows what tasks with PlanRetentionOperator and ApplyRetentionOperator have pushed. Trigger ",
          "tavus_prune_replicas with Dry run on, and look here again. ", link("dags?tags=tavus", "Open the DAGs tagged tavus")));
      $("problem").hidden = false;
    }
    if (state.runs.length) await readHistory();
  } catch (error) {
    complain(error);
  } finally {
    $("refresh").disabled = false;
  }
}

function followTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  let outer = null;
  try {
    outer = window.parent === window ? null : window.parent.document;
  } catch { /* another origin */ }
  const apply = () => {
    const classes = outer?.documentElement.classList;
    const dark = classes?.contains("dark") ? true : classes?.contains("light") ? false : system.matches;
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    showPictures();
  };
  system.addEventListener("change", apply);
  if (outer) new MutationObserver(apply).observe(outer.documentElement, { attributeFilter: ["class"] });
  apply();
}

$("refresh").addEventListener("click", start);
$("plans").addEventListener("change", () => {
  const choice = plansOf(state.runs)[Number($("plans").value)];
  const query = new URLSearchParams({ dag_id: choice.ti.dag_id, run_id: choice.ti.dag_run_id, task_id: choice.ti.task_id, map_index: choice.ti.map_index });
  history.replaceState(null, "", `?${query}`);
  showPlan(choice).catch(complain);
});
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("filters").addEventListener("input", () => {
  state.page = 0;
  showRows();
});
$("older").addEventListener("click", async () => {
  $("older").disabled = true;
  try {
    if (state.more && withOutcomes().length === state.runs.length) await readMoreRuns();
    await readHistory();
    fillPlans(state.shown);
  } catch (error) {
    complain(error);
  } finally {
    $("older").disabled = false;
  }
});
followTheme();
start();
