// The Tavus page: one account at a time, one of its runs, and the replicas of that run. It reads Airflow only, never Tavus.

import { readAnswers, readDags, readPlanned } from "./account_reads.js";
import { UNKNOWN, groupByAccount, learn, unknownTasks } from "./accounts.js";
import { remember, requested } from "./address.js";
import { PageError, forget, inParallel, kindOf, readDeletes, readPlans, readRuns, readTasks, readXCom, runKey } from "./airflow.js";
import { readDetails, readStatus, signature } from "./details.js";
import { byId, link, make } from "./dom.js";
import { readErasures } from "./erasures.js";
import { escapeText, plural, time } from "./format.js";
import { loadLabels, outcomeLabel, statusLabel } from "./labels.js";
import { countByGroup, countKept, replicaRows, storedAt } from "./plan.js";
import { listenToReplicas, showReplicas } from "./replicas.js";
import { describe, isUnderWay, leftBadge } from "./run_state.js";
import { followTheme } from "./theme.js";
import { showAccount, showAccountChoice, showAges, showDeciders, showDifference, showErasures, showForecast, showNext, showPlanFacts, showReadAt, showRun, showRunChoice, showRuns } from "./views.js";

const RUNS_SHOWN = 10;
const DAGS_READ = 4; // of an account, for their runs
const ACCOUNTS_READ = 8;
const HISTORY_RUNS = 10;
const ACTIVE_READ = 10; // older runs that are still under way
const UNKNOWN_READ = 20;
const UNKNOWN_READ_FIRST = 2; // before the first picture
const REFRESH_MS = 5_000;
const OTHERS_REFRESH_MS = 60_000;

const page = {
  tasks: [], offset: 0, more: false, oldest: null, // the plan tasks that were read, and the oldest of them
  erasures: null, // the newest run of each erasure request
  accounts: [], account: null, entry: null, details: null, verdicts: null, // what is shown
  runs: new Map(), read: new Map(), // Dag runs and details by run
  shownRuns: RUNS_SHOWN, request: 0, timer: null, othersReadAt: 0,
};

const entryKey = ({ task }) => `${task.id}`;
const newestPlan = (account) => account.entries.find(({ kind, task }) => kind === "plan" && task.state === "success") ?? account.entries.find(({ kind }) => kind === "plan") ?? account.entries[0];

// -- one run

// The state of a run as its badge says it.
function stateOf(entry) {
  const details = page.details?.entry === entry ? page.details : page.account.known?.get(entryKey(entry));
  return (details ? describe(details).badge : null) ?? page.runs.get(runKey(entry.task))?.state;
}

const showChoiceOfRuns = () => showRunChoice(page.account.entries, page.entry, stateOf);

async function detailsOf(entry, account, { fresh = false } = {}) {
  const key = entryKey(entry);
  if (fresh || !page.read.has(key)) page.read.set(key, readDetails(entry, account.connection, { run: fresh ? null : page.runs.get(runKey(entry.task)) ?? null }));
  try {
    return await page.read.get(key);
  } catch (error) {
    page.read.delete(key);
    throw error;
  }
}

// The details of the newest plan of an account, if they were read.
function newestDetails(account) {
  const newest = newestPlan(account);
  if (page.details.entry === newest) account.details = page.details;
  account.details ??= account.known?.get(entryKey(newest));
  return account.details;
}

function showAccountFacts() {
  const { account, details } = page;
  const erasures = page.erasures?.rows.filter(({ connection }) => connection === account.connection);
  showAccount({ account, erasures, latest: account.latest, shown: details, isNewestPlan: details.entry === newestPlan(account), show: showChosen });
  showNext({ account, unreadBefore: oldestRead()?.run_after ?? null, erasures, newest: newestDetails(account), runs: [...new Map([...account.known?.values() ?? [], account.latest, details].filter(Boolean).map((one) => [entryKey(one.entry), one])).values()] });
}

function showAll({ keep = false } = {}) {
  const { account, details, verdicts } = page;
  const { plan, report, entry } = details;
  if (entry === account.entries[0]) account.latest = details;
  showAccountFacts();
  showAccountChoice(page.accounts, account, chooseAccount);
  showChoiceOfRuns();
  showErasures(page.erasures, account, page.accounts);
  showRun(details, { isLatest: entry === account.entries[0] });
  byId("plan-content").hidden = !plan;
  byId("to-search").hidden = false;
  if (plan) {
    const rows = replicaRows(plan, verdicts, report);
    showReplicas(rows, { left: leftBadge(details), counts: countByGroup(plan, verdicts), kept: countKept(plan, verdicts), readHistory: (id) => readHistory(id, account), keep });
    showDeciders(plan, verdicts);
    showAges(rows, plan);
    showNotice(plan, verdicts, rows);
    byId("replicas-title").textContent = `Replicas and reasons${plan.made_at ? `, as planned ${time(plan.made_at)}` : ""}`;
  }
  byId("no-plan").hidden = Boolean(plan);
  byId("no-plan").textContent = entry.kind === "delete" ? "This run deletes replicas by their id and has no plan." : "This run has no plan, so there are no replicas and no reasons to show.";
  byId("content").hidden = false;
  byId("skeleton").hidden = true;
  document.body.removeAttribute("aria-busy");
  showReadAt();
}

function showNotice(plan, verdicts, rows) {
  const planAt = storedAt(plan);
  const complete = Boolean(verdicts?.rows?.length) || rows.length >= plan.listed;
  byId("notice").hidden = complete;
  const missing = plan.listed - rows.length;
  byId("notice").replaceChildren(...(complete ? [] : [make("div", {},
    make("p", {}, make("strong", {}, `The reasons of ${plural(missing, rows.length ? "other replica" : "replica")} are not shown here.`)),
    make("p", {}, "To see why one replica is kept or not: ", make("code", {}, "python -m tavus_provider explain POLICY REPLICA_ID"), rows.length ? ". The table has the replicas that are to be deleted, scheduled or undetermined." : "."),
    planAt ? make("p", { class: "muted" }, "The plan, with every replica to delete, is stored at ", make("code", { class: "path" }, escapeText(planAt)), ".") : null,
    make("p", { class: "muted" }, `${escapeText(verdicts?.notice ?? "Airflow has no verdicts of this run")}.`))]));
}

async function showEntry(entry, { fresh = false } = {}) {
  const request = ++page.request;
  const { account } = page;
  clearTimeout(page.timer);
  const isOther = page.entry !== entry;
  page.entry = entry;
  remember(entry.task, account.connection);
  showChoiceOfRuns();
  byId("content").setAttribute("aria-busy", "true");
  const reads = entry.kind === "delete" ? null : readXCom(entry.task, "verdicts");
  reads?.catch(() => {});
  const details = await detailsOf(entry, account, { fresh });
  const verdicts = details.plan ? await (details.task.state === entry.task.state ? reads : readXCom(details.task, "verdicts")) : null;
  if (request !== page.request) return;
  entry.task = { ...entry.task, state: details.task.state };
  page.runs.set(runKey(entry.task), details.run);
  Object.assign(page, { details, verdicts });
  if (isOther) {
    showDifference(null);
    showForecast(null);
  }
  showAll({ keep: !isOther });
  byId("content").removeAttribute("aria-busy");
  performance.mark("tavus-first-picture");
  await showOutlook(entry, details, request);
  if (request === page.request) watch(details);
}

async function showOutlook(entry, { plan, task }, request) {
  if (!plan || entry.kind !== "plan") return;
  const [difference, forecast] = await Promise.all([readXCom(task, "difference"), readXCom(task, "forecast")]);
  if (request !== page.request) return;
  if (entry === newestPlan(page.account)) page.account.forecast = forecast;
  page.details.narrowedBy = forecast?.narrowed_by ?? null;
  page.details.forecast = forecast;
  showDifference(difference);
  showForecast(forecast, page.details, page.account.dags);
  showAccountFacts();
  showPlanFacts(page.details);
}

// Reads the state of a run again while it is under way, and the run itself if its state has changed.
function watch(details) {
  clearTimeout(page.timer);
  if (!isUnderWay(details)) return;
  const { entry, account } = page;
  page.timer = setTimeout(async () => {
    try {
      const status = document.hidden ? details : await readStatus(entry, account.connection);
      if (page.entry !== entry) return;
      if (signature(status) === signature(details)) {
        if (!document.hidden && Date.now() - page.othersReadAt > OTHERS_REFRESH_MS) await readOthers(account);
        showReadAt();
        watch(details);
        return;
      }
      await showEntry(entry, { fresh: true });
      account.known?.set(entryKey(entry), page.details);
      showRunsTable();
      await readSchedule(account);
    } catch {
      watch(details); // Airflow did not respond: it is asked again
    }
  }, REFRESH_MS);
}

// Reads what may have changed beside the run that is shown: new runs, those under way, and the schedules.
async function readOthers(account) {
  page.othersReadAt = Date.now();
  const { tasks } = await readPlans();
  const known = new Set(page.tasks.map(({ id }) => id));
  page.tasks.push(...tasks.filter(({ id }) => !known.has(id)));
  regroup();
  for (const entry of account.entries) {
    if (entry !== page.entry && isUnderWay({ run: page.runs.get(runKey(entry.task)) })) page.read.delete(entryKey(entry));
  }
  await readRunsOf(account.dagIds);
  if (account !== page.account) return;
  await readRunsTable();
  showChoiceOfRuns();
  await readSchedule(account);
}

// What the runs that were read, and some before them, say about a replica, the newest first.
async function readHistory(replicaId, account) {
  const events = [];
  const entries = account.entries.filter(({ kind }) => kind === "plan").slice(0, HISTORY_RUNS);
  await inParallel(entries, async (entry) => {
    const { plan, report, run } = await detailsOf(entry, account);
    const verdicts = await readXCom(entry.task, "verdicts");
    const item = report?.dry_run ? null : report?.items?.find(({ replica_id }) => replica_id === replicaId);
    if (item) events.push({ when: run?.end_date ?? entry.task.run_after, label: outcomeLabel(item.outcome), text: escapeText(item.detail) });
    const verdict = replicaRows(plan ?? {}, verdicts).find(({ key }) => key === replicaId);
    if (verdict) events.push({ when: plan?.made_at ?? entry.task.run_after, label: statusLabel(verdict.status), text: verdict.reason });
  });
  return { events: merge(events.sort((a, b) => (a.when < b.when ? 1 : -1))), runs: entries.length };
}

// Plans that say the same one after the other are one event, with the time of the first of them and their number.
function merge(events) {
  const merged = [];
  for (const event of events) {
    const last = merged.at(-1);
    if (last && last.label.name === event.label.name) Object.assign(last, { since: event.when, times: last.times + 1 });
    else merged.push({ ...event, since: event.when, times: 1 });
  }
  return merged;
}

// -- the runs of the account

// Shows the run that a person chose.
function showChosen(entry) {
  byId("headline").scrollIntoView({ block: "center" });
  showEntry(entry).then(showRunsTable).catch(showError);
}

function showRunsTable() {
  const { account } = page;
  const rows = account.entries.slice(0, page.shownRuns).map((entry) => ({ entry, details: account.known?.get(entryKey(entry)), state: page.runs.get(runKey(entry.task))?.state }));
  showRuns(rows, { chosen: page.entry, choose: showChosen });
  byId("older").hidden = account.entries.length <= page.shownRuns && !page.more;
}

async function readRunsTable() {
  const { account } = page;
  account.known ??= new Map();
  showRunsTable();
  const isActive = ({ task }) => isUnderWay({ run: page.runs.get(runKey(task)) });
  const older = account.entries.slice(page.shownRuns).filter(isActive).slice(0, ACTIVE_READ);
  await inParallel([...account.entries.slice(0, page.shownRuns), ...older], async (entry) => {
    account.known.set(entryKey(entry), await detailsOf(entry, account));
    if (account === page.account) showRunsTable();
  });
}

async function readRunsOf(dagIds) {
  const runs = await Promise.all(dagIds.slice(0, DAGS_READ).map(readRuns));
  for (const run of runs.flat()) page.runs.set(runKey(run), run);
}

// -- the accounts

async function chooseAccount(account) {
  if (account === page.account) return;
  Object.assign(page, { account, shownRuns: RUNS_SHOWN, entry: null });
  await showAccountOf(newestPlan(account)).catch(showError);
}

async function showAccountOf(entry) {
  const { account } = page;
  await showEntryWithRuns(entry);
  if (account !== page.account) return;
  const latest = account.entries[0];
  const [dags, details, forecast] = await Promise.all([
    readDags(account),
    latest === entry ? page.details : readRunsOf(account.dagIds).then(() => detailsOf(latest, account)),
    account.forecast === undefined ? readXCom(newestPlan(account).task, "forecast") : account.forecast,
  ]);
  Object.assign(account, { dags, latest: details, forecast });
  if (account !== page.account) return;
  showAccountChoice(page.accounts, account, chooseAccount);
  showAccountFacts();
  await readRunsOf(account.dagIds.filter((dagId) => dagId !== entry.task.dag_id));
  await readSchedule(account, { dags });
  if (account !== page.account) return;
  await readRunsTable();
  const ended = ({ run }) => ["success", "failed"].includes(run?.state);
  account.finished = account.entries.map((entry) => account.known?.get(entryKey(entry))).find((one) => one && ended(one)) ?? null;
  if (account.answers === undefined) account.answers = await answersOf(account);
  if (account === page.account) showAccountFacts();
}

// Reads the schedules of an account, and shows what they delete next.
async function readSchedule(account, { dags = null } = {}) {
  account.dags = dags ?? await readDags(account);
  account.planned = await readPlanned(account, (entry) => detailsOf(entry, account));
  if (account !== page.account || !page.details) return;
  showAccountFacts();
  showForecast(page.details.forecast, page.details, account.dags);
}

async function showEntryWithRuns(entry) {
  const { account } = page;
  await readRunsOf([entry.task.dag_id]);
  if (account === page.account) await showEntry(entry);
}

async function readOtherAccounts() {
  await inParallel(page.accounts.filter((account) => account !== page.account).slice(0, ACCOUNTS_READ), async (account) => {
    account.details ??= await detailsOf(newestPlan(account), account);
    account.forecast ??= await readXCom(newestPlan(account).task, "forecast");
    account.dags ??= await readDags(account);
    account.planned ??= await readPlanned(account, (entry) => detailsOf(entry, account));
    showAccountChoice(page.accounts, page.account, chooseAccount);
  });
}

function regroup() {
  const before = new Map(page.accounts.map((account) => [account.connection, account]));
  page.accounts = groupByAccount(page.tasks).map((account) => {
    const known = before.get(account.connection);
    if (!known) return account;
    const entries = new Map(known.entries.map((entry) => [entryKey(entry), entry]));
    return Object.assign(known, { ...account, entries: account.entries.map((entry) => entries.get(entryKey(entry)) ?? entry) });
  });
}

// The oldest plan task that was read, if Airflow has older ones.
const oldestRead = () => (page.more ? page.oldest : null);

const answersOf = (account) => readAnswers(account, {
  oldestPlan: oldestRead(),
  detailsOf: (entry) => detailsOf(entry, account),
  isShared: (task) => page.accounts.some((other) => other !== account && other.entries.some((entry) => runKey(entry.task) === runKey(task))),
});

async function readMore(wanted = null) {
  const { tasks, more } = await readPlans(page.offset);
  page.offset += tasks.length;
  page.oldest = tasks.at(-1) ?? page.oldest;
  page.more = more;
  page.tasks.push(...tasks);
  regroup();
  await learnAccounts({ most: UNKNOWN_READ_FIRST, wanted });
}

// Only Airflow 3.1 needs it: one read for each plan task of a Dag, whatever the number of runs.
async function learnAccounts({ most, wanted = null }) {
  const unknown = unknownTasks(page.accounts, wanted).slice(0, most);
  if (!unknown.length) return;
  await inParallel(unknown, async (task) => learn(task, await readXCom(task)));
  regroup();
  if (!page.details) return;
  if (!page.accounts.includes(page.account)) await moveToItsAccount();
  // The account that is shown may have more Dags and runs now.
  const { account } = page;
  if (account.answers) account.answers = await answersOf(account);
  await readSchedule(account);
}

// The account of the run that is shown has become known.
async function moveToItsAccount() {
  const shown = entryKey(page.entry);
  const account = page.accounts.find(({ entries }) => entries.some((entry) => entryKey(entry) === shown));
  if (!account) return;
  Object.assign(page, { account });
  await showAccountOf(account.entries.find((entry) => entryKey(entry) === shown));
}

// Returns the account and the entry that the address asks for, or the newest plan.
function choose(wanted) {
  const matches = ({ task }) => task.dag_id === wanted?.dag_id && task.dag_run_id === wanted?.dag_run_id;
  const exact = (entry) => matches(entry) && entry.task.task_id === wanted.task_id && String(entry.task.map_index) === wanted.map_index;
  for (const test of [exact, matches]) {
    for (const account of page.accounts) {
      const entry = wanted?.dag_id ? account.entries.find(test) : null;
      if (entry) return { account, entry };
    }
  }
  const account = page.accounts.find(({ connection }) => connection === wanted?.connection)
    ?? page.accounts.find(({ connection }) => connection !== UNKNOWN) ?? page.accounts[0];
  return { account, entry: account ? newestPlan(account) : null };
}

function showNothing() {
  byId("skeleton").hidden = true;
  document.body.removeAttribute("aria-busy");
  byId("problem").className = "alert info";
  byId("problem").replaceChildren(make("div", {}, make("p", {}, make("strong", {}, "No plan has been made yet"), ", or none in a Dag that you may read."),
    make("p", {}, "This page shows what the tasks of this provider have pushed. Trigger tavus_prune_replicas with Dry run on, then refresh this page. ", link("dags?tags=tavus", "Open the Dags tagged tavus"))));
  byId("problem").hidden = false;
}

function showError(error) {
  const text = error instanceof PageError ? error.message : "This page failed. The console of the browser has the details.";
  if (!(error instanceof PageError)) console.error(error);
  byId("skeleton").hidden = true;
  byId("content").removeAttribute("aria-busy");
  document.body.removeAttribute("aria-busy");
  byId("problem").className = "alert error";
  byId("problem").replaceChildren(make("div", {}, make("p", {}, text), make("p", {}, make("button", { type: "button", onclick: start }, "Try again"))));
  byId("problem").hidden = false;
}

async function start() {
  byId("problem").hidden = true;
  byId("refresh").disabled = true;
  page.request += 1;
  clearTimeout(page.timer);
  try {
    const wanted = requested();
    Object.assign(page, { tasks: [], offset: 0, more: false, oldest: null, accounts: [], account: null, entry: null, details: null });
    page.othersReadAt = Date.now();
    page.runs.clear();
    page.read.clear();
    forget();
    await Promise.all([loadLabels(), readMore(wanted)]);
    if (wanted?.dag_id && !page.tasks.some((task) => runKey(task) === runKey(wanted))) {
      page.tasks.push(...(await readTasks(wanted)).tasks.filter((task) => ["plan", "look", "delete"].includes(kindOf(task))));
      regroup();
    }
    if (!page.accounts.length) await readDeleteRuns();
    const { account, entry } = choose(wanted);
    page.account = account ?? null;
    if (!account) {
      showNothing();
      return await readErasuresTable();
    }
    await showAccountOf(entry);
    await learnAccounts({ most: UNKNOWN_READ });
    await readDeleteRuns();
    await readOtherAccounts();
    await readErasuresTable();
  } catch (error) {
    showError(error);
  } finally {
    byId("refresh").disabled = false;
  }
  return undefined;
}

async function readDeleteRuns() {
  const { tasks } = await readDeletes();
  const known = new Set(page.tasks.map(runKey));
  page.tasks.push(...tasks.filter((task) => !known.has(runKey(task))));
  regroup();
  if (!page.account) return;
  showAccountChoice(page.accounts, page.account, chooseAccount);
  showChoiceOfRuns();
  await readRunsTable();
}

async function readErasuresTable() {
  page.erasures = await readErasures();
  showErasures(page.erasures, page.account, page.accounts);
  if (page.details) showAccountFacts();
}

async function showOlder() {
  byId("older").disabled = true;
  try {
    page.shownRuns += RUNS_SHOWN;
    if (page.more && page.account.entries.length < page.shownRuns) await readMore();
    showAccountChoice(page.accounts, page.account, chooseAccount);
    showChoiceOfRuns();
    await readRunsTable();
  } catch (error) {
    showError(error);
  } finally {
    byId("older").disabled = false;
  }
}

byId("refresh").addEventListener("click", start);
byId("runs-choice").addEventListener("change", () => showChosen(page.account.entries[Number(byId("runs-choice").value)]));
byId("older").addEventListener("click", showOlder);
listenToReplicas();
followTheme();
start();
