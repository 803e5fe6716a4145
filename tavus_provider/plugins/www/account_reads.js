// Reads what is said about an account beside its runs: the schedules of its Dags, what each of them planned last, and who
// answered the last approvals.

import { inParallel, readApprovalTasks, readApprovals, readDag, readHealth, readXCom, runKey } from "./airflow.js";
import { number, plural, time } from "./format.js";
import { outcomeLabel } from "./labels.js";
import { isOfItsDag, scheduledDags } from "./next_deletes.js";
import { describe, isApproval, isFailureOfOthers, isKeyRefused, isUnderWay } from "./run_state.js";

const SCHEDULES_READ = 12; // Dags of an account
const ANSWERS_READ = 5;
const ENDED = ["success", "failed"];
const WAITING = ["awaiting_input", "deferred"];
const NEWER_READ = 10; // runs after a plan, for what they have deleted
const PLANS_TRIED = 3; // of a Dag, for one that no form has narrowed

export const readDags = async ({ dagIds }) => (await Promise.all(dagIds.slice(0, SCHEDULES_READ).map(readDag))).filter(Boolean);

// The plan tasks of a Dag, the newest first, in one list for each part of it that plans for the account by itself.
function partsOf(account, dagId) {
  const entries = account.entries.filter(({ kind, task }) => kind === "plan" && task.dag_id === dagId);
  const newest = entries.filter(({ task }) => task.dag_run_id === entries[0].task.dag_run_id);
  if (newest.length < 2) return entries.length ? [{ part: null, entries }] : [];
  const isSame = (a) => (b) => a.task.task_id === b.task.task_id && a.task.map_index === b.task.map_index;
  return newest.map((one) => ({ part: one.task.map_index < 0 ? one.task.task_id : `${one.task.task_id} [${one.task.map_index}]`, entries: entries.filter(isSame(one)) }));
}

// Returns what each Dag with a schedule planned last, the next run first: see nextDeletes. `detailsOf` reads a run;
// `health` is that of Airflow, read only if a run is overdue.
export async function readPlanned(account, detailsOf) {
  const dags = scheduledDags(account.dags);
  const health = dags.some(({ next_dagrun_run_after: at }) => at && new Date(at) < Date.now()) ? await readHealth() : null;
  const nothing = { details: null, forecast: null, scheduled: null, failed: null, reading: null, gone: new Set(), health };
  const planned = dags.flatMap((dag) => {
    const parts = partsOf(account, dag.dag_id);
    return parts.length ? parts.map((part) => ({ ...nothing, dag, ...part })) : [{ ...nothing, dag, part: null, entries: [], deletesById: true }];
  });
  await inParallel(planned, async (one) => {
    for (const entry of one.entries.slice(0, PLANS_TRIED)) {
      const details = await detailsOf(entry);
      if (entry === one.entries[0]) Object.assign(one, { failed: failureOf(details, account), reading: isUnderWay(details) && !details.plan ? details : null });
      if (details.plan && details.run?.run_type === "scheduled") one.scheduled ??= details;
      const forecast = details.plan && !one.details ? await readXCom(entry.task, "forecast") : null;
      if (!one.details && isOfItsDag(details, forecast)) Object.assign(one, { details, forecast });
      if (one.details && one.scheduled) break;
    }
    if (one.details) one.gone = await deletedSince(one.details.entry, account, detailsOf);
  });
  return planned;
}

// The ids of the replicas that the runs of an account after one of its plans have deleted, as far as they were read.
async function deletedSince(entry, account, detailsOf) {
  const newer = account.entries.slice(0, account.entries.indexOf(entry)).slice(0, NEWER_READ);
  const reports = await Promise.all(newer.map(async (one) => (await detailsOf(one)).report));
  const items = reports.filter((report) => report && !report.dry_run).flatMap((report) => report.items ?? []);
  return new Set(items.filter(({ outcome }) => outcomeLabel(outcome).gone).map(({ replica_id }) => replica_id));
}

// What went wrong in a run: { words, isBlocked }, or null. A refused key blocks as long as no newer task has worked with it.
function failureOf(details, account) {
  if (details.run?.state !== "failed" || isFailureOfOthers(details)) return null;
  const newer = account.entries.slice(0, account.entries.indexOf(details.entry));
  return { words: describe(details).words, isBlocked: isKeyRefused(details) && !newer.some(({ task }) => task.state === "success") };
}

// Returns the newest answers to approvals of this account, up to the newest Approve: { answers, note }. Only a few are read.
// `oldestPlan` is the oldest plan task that was read, null if Airflow has no older one; `detailsOf` reads a run, and
// `isShared` says whether a run has plans of other accounts too.
export async function readAnswers(account, { oldestPlan, detailsOf, isShared }) {
  const { tasks, more } = await readApprovalTasks();
  const asked = [];
  let isWaiting = false;
  for (const task of tasks.filter(({ state }) => [...ENDED, ...WAITING].includes(state))) {
    // An approval of a mapped plan has the index of its plan.
    const entry = account.entries.find(({ task: plan }) => runKey(plan) === runKey(task) && [plan.map_index, -1].includes(task.map_index));
    if (!entry || asked.length > ANSWERS_READ) continue;
    const isOwn = task.map_index >= 0 || !isShared(task) || (await detailsOf(entry)).tasks.some(({ id }) => id === task.id);
    if (isOwn && ENDED.includes(task.state)) asked.push(task);
    isWaiting ||= isOwn && WAITING.includes(task.state);
  }
  const answers = [];
  for (const task of asked.slice(0, ANSWERS_READ)) {
    const given = await readApprovals(task);
    if (!given) return { answers: [], note: "your role may not read it" };
    const answer = given.find(({ response_received, task_instance }) => response_received && task_instance.id === task.id);
    if (answer) answers.push(answer);
    if (answer && isApproval(answer)) break;
  }
  return { answers, note: approvalNote(account, { answers, asked: asked.length, isWaiting }, [more ? tasks.at(-1) : null, oldestPlan]) };
}

// Why there is no Approve among the answers that were read, and how far back they go: `oldest` has the
// oldest of the tasks that were read, if Airflow has older ones.
function approvalNote({ entries }, { answers, asked, isWaiting }, oldest) {
  if (asked > ANSWERS_READ) return `none of the last ${number(ANSWERS_READ)} requests`;
  const since = oldest.filter(Boolean).map(({ run_after }) => run_after).sort().at(-1);
  if (since) return `none since ${time(since).slice(0, 10)}, ${plural(entries.filter(({ task }) => task.run_after >= since).length, "run")} read`;
  if (asked > 1) return `never; none of ${number(asked)} requests was approved`;
  if (asked) return answers.length ? `never; the only ${isWaiting ? "answered " : ""}request was rejected` : "never; nobody answered the only request";
  return isWaiting ? "never; the first request waits for an answer" : `never; no run asked for an approval (${plural(entries.length, "run")} in Airflow)`;
}
