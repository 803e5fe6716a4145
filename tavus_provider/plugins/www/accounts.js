// Accounts: the plans of one Airflow connection. A plan task has the connection among its rendered fields.
// Airflow keeps these for the newest runs, so an older task counts for the connection of newer ones like it,
// and Airflow 3.1 does not send them, so there it is learned from a plan.

import { kindOf } from "./airflow.js";

export const UNKNOWN = "unknown connection";

const taskKey = (task) => `${task.dag_id} ${task.task_id} ${task.map_index}`;
const learned = new Map();
const rendered = (task) => (typeof task.rendered_fields?.tavus_conn_id === "string" ? task.rendered_fields.tavus_conn_id : null);

// Notes the connection of a plan for tasks like the one that made it.
export function learn(task, plan) {
  if (typeof plan?.tavus_conn_id === "string") learned.set(taskKey(task), plan.tavus_conn_id);
}

// Returns the newest task of each kind whose connection is unknown; first those that are asked for.
export function unknownTasks(accounts, wanted = null) {
  const entries = accounts.find(({ connection }) => connection === UNKNOWN)?.entries ?? [];
  const tasks = new Map();
  for (const { task, kind } of entries) {
    if (kind !== "delete" && task.state === "success" && !tasks.has(taskKey(task))) tasks.set(taskKey(task), task);
  }
  const fits = (task) => (task.dag_id === wanted?.dag_id) * (1 + (task.task_id === wanted?.task_id && String(task.map_index) === wanted?.map_index));
  return [...tasks.values()].sort((a, b) => fits(b) - fits(a));
}

// Returns accounts of tasks, that of the newest task first: [{ connection, entries: [{ task, kind }], dagIds }].
export function groupByAccount(tasks) {
  const newest = [...tasks].sort((a, b) => (a.run_after < b.run_after ? 1 : -1));
  const known = new Map();
  for (const task of newest) if (rendered(task) && !known.has(taskKey(task))) known.set(taskKey(task), rendered(task));
  const accounts = new Map();
  const seen = new Set();
  for (const task of newest) {
    if (seen.has(task.id)) continue;
    seen.add(task.id);
    const connection = rendered(task) ?? known.get(taskKey(task)) ?? learned.get(taskKey(task)) ?? UNKNOWN;
    if (!accounts.has(connection)) accounts.set(connection, { connection, entries: [], dagIds: [] });
    const account = accounts.get(connection);
    const kind = kindOf(task);
    // A run that deletes by id and has no plan is one entry, whatever the number of its tasks.
    const sameRun = (entry) => entry.task.dag_id === task.dag_id && entry.task.dag_run_id === task.dag_run_id;
    if (kind === "delete" && [...accounts.values()].some(({ entries }) => entries.some(sameRun))) continue;
    account.entries.push({ task, kind });
    if (!account.dagIds.includes(task.dag_id)) account.dagIds.push(task.dag_id);
  }
  return [...accounts.values()].filter(({ entries }) => entries.length);
}

const plansOf = (tasks) => tasks.filter((task) => ["plan", "look"].includes(kindOf(task)));
export const isShared = (tasks) => plansOf(tasks).length > 1;

// Whether a run has plans of several tasks: which other tasks belong to which, the structure of the Dag says.
export const hasSeveralPlanTasks = (tasks) => new Set(plansOf(tasks).map(({ task_id }) => task_id)).size > 1;

// Returns a function that says whether a task of a run belongs to the plan of an entry. `tasks` are those of the run,
// `structure` is that of its Dag, [{ task_id, downstream_task_ids }], if it was read.
export function ownTask({ task: plan, kind }, connection, tasks, structure = null) {
  if (kind === "delete" || !isShared(tasks)) return () => true;
  const after = structure ? downstream(plan.task_id, structure) : null;
  // A task is of the nearest plan before it.
  const isOfOthers = (task) => after && plansOf(tasks).some(({ task_id: other }) => other !== plan.task_id && downstream(other, structure).has(task.task_id) && (!after.has(task.task_id) || after.has(other)));
  return (task) => {
    if (!kindOf(task) || task.id === plan.id) return true;
    if (["plan", "look"].includes(kindOf(task))) return false;
    if (rendered(task) && rendered(task) !== connection) return false;
    if (isOfOthers(task)) return false;
    return plan.map_index < 0 || task.map_index < 0 || task.map_index === plan.map_index;
  };
}

function downstream(taskId, structure) {
  const next = new Map(structure.map(({ task_id, downstream_task_ids: ids }) => [task_id, ids ?? []]));
  const found = new Set();
  const visit = (id) => (next.get(id) ?? []).filter((one) => !found.has(one)).forEach((one) => { found.add(one); visit(one); });
  visit(taskId);
  return found;
}
