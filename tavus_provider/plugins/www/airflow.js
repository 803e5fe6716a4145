// Reads what plan, approve, apply and delete tasks have pushed, through Airflow's public REST API and with
// the session of the person who looks: the page shows nothing that Airflow would not show this person.

const API = new URL("../api/v2/", location.href);
const OPERATORS = {
  plan: "PlanRetentionOperator",
  approve: "ApproveRetentionOperator",
  apply: "ApplyRetentionOperator",
  delete: "DeleteReplicaOperator",
};
const TASKS_PER_READ = 100;
const PARALLEL_READS = 4;
const MAX_DELETE_TASKS = 50;

// An error whose message is written for the person who looks at the page.
export class PageError extends Error {}

async function get(path, { missing } = {}) {
  let response;
  try {
    response = await fetch(new URL(path, API), { headers: { Accept: "application/json" }, credentials: "same-origin" });
  } catch {
    throw new PageError("Airflow did not respond. Check your network connection.");
  }
  if (response.status === 404 && missing !== undefined) return missing;
  if (response.status === 401) throw new PageError("You are not signed in to Airflow, so there is nothing to show. Sign in, then reload this page.");
  if (response.status === 403) throw new PageError("Your Airflow role may not read this: it needs permission to read task instances and XComs of the DAGs that use Tavus.");
  if (!response.ok) throw new PageError(`Airflow responded with status ${response.status} to GET ${path.split("?")[0]}.`);
  return response.json();
}

const segment = encodeURIComponent;

// Returns the value of an XCom, or null if the task has not pushed it.
export async function readXCom(task, key = "return_value") {
  if (!["success", "failed", "running"].includes(task.state)) return null;
  const path = `dags/${segment(task.dag_id)}/dagRuns/${segment(task.dag_run_id)}/taskInstances/${segment(task.task_id)}`;
  const entry = await get(`${path}/xcomEntries/${segment(key)}?map_index=${task.map_index}`, { missing: null });
  const value = entry?.value ?? null;
  try {
    return typeof value === "string" ? JSON.parse(value) : value;
  } catch {
    return null;
  }
}

// Tasks are found by the class of their operator, in all DAGs.
async function readTasks(runs, offset) {
  const query = new URLSearchParams({ limit: TASKS_PER_READ, offset, order_by: "-run_after" });
  Object.values(OPERATORS).forEach((name) => query.append("operator", name));
  return get(`${runs}/taskInstances?${query}`);
}

// Returns the next page of tasks of the latest runs: { tasks, more }.
export async function readLatestTasks(offset) {
  const read = await readTasks("dags/~/dagRuns/~", offset);
  const tasks = read.task_instances;
  return { tasks, more: tasks.length > 0 && offset + tasks.length < read.total_entries };
}

export async function readTasksOfRun({ dag_id, dag_run_id }) {
  return (await readTasks(`dags/${segment(dag_id)}/dagRuns/${segment(dag_run_id)}`, 0)).task_instances;
}

// Returns the runs with these tasks added, the latest run first.
export function addTasks(runs, tasks) {
  const byId = new Map(runs.map((run) => [`${run.dag_id} ${run.dag_run_id}`, run]));
  for (const task of tasks) {
    const id = `${task.dag_id} ${task.dag_run_id}`;
    const kind = Object.keys(OPERATORS).find((name) => OPERATORS[name] === (task.operator_name ?? task.operator));
    if (!kind) continue;
    if (!byId.has(id)) {
      byId.set(id, { dag_id: task.dag_id, dag_run_id: task.dag_run_id, when: task.run_after, plan: [], approve: [], apply: [], delete: [] });
    }
    const run = byId.get(id);
    if (!run[kind].some((known) => known.id === task.id)) run[kind].push(task);
  }
  return [...byId.values()].sort((a, b) => (a.when < b.when ? 1 : -1));
}

// Sets run.outcomes = { planned, counts, dryRun } on each of these runs, a few at a time.
export async function readOutcomes(runs) {
  const waiting = [...runs];
  await Promise.all(Array.from({ length: PARALLEL_READS }, async () => {
    while (waiting.length) await readOutcomesOfRun(waiting.shift());
  }));
}

async function readOutcomesOfRun(run) {
  const counts = {};
  let planned = 0;
  let dryRun = false;
  for (const task of run.apply) {
    const report = await readXCom(task);
    if (!report?.counts) continue;
    dryRun = dryRun || report.dry_run === true;
    // The counts cover all replicas; a report that is too large for an XCom has only a part of the items.
    planned += Object.values(report.counts).reduce((sum, count) => sum + count, 0);
    for (const [outcome, count] of Object.entries(report.counts)) counts[outcome] = (counts[outcome] ?? 0) + count;
  }
  for (const task of run.delete.filter(({ state }) => state === "success").slice(0, MAX_DELETE_TASKS)) {
    const result = await readXCom(task);
    if (!result?.outcome) continue;
    planned += 1;
    counts[result.outcome] = (counts[result.outcome] ?? 0) + 1;
  }
  if (!planned && !run.delete.length) {
    for (const task of run.plan) {
      const plan = await readXCom(task);
      planned += plan?.delete?.length ?? plan?.counts?.delete ?? 0;
    }
  }
  run.outcomes = { planned, counts, dryRun };
}

export const runPath = (run) => `dags/${segment(run.dag_id)}/runs/${segment(run.dag_run_id)}`;
export const taskPath = (task) => `${runPath(task)}/tasks/${segment(task.task_id)}${task.map_index >= 0 ? `/mapped/${task.map_index}` : ""}`;
