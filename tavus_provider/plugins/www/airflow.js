// Reads what the tasks of this provider have pushed, through Airflow's public REST API and with the session
// of the person who looks: the page shows nothing that Airflow would not show this person.

const API = new URL("../api/v2/", location.href);
const OPERATORS = {
  plan: "PlanRetentionOperator",
  look: "LookUpReplicaOperator",
  approve: "ApproveRetentionOperator",
  split: "SplitRetentionOperator",
  apply: "ApplyRetentionOperator",
  summary: "SummarizeRetentionOperator",
  delete: "DeleteReplicaOperator",
  planErasure: "PlanErasureOperator",
  applyErasure: "ApplyErasureOperator",
  certify: "CertifyErasureOperator",
};
const TASKS_PER_READ = 100;
const RUNS_PER_READ = 50;
const DELETES_PER_READ = 50;
const FAILED_PER_READ = 20;
const ERASURES_PER_READ = 50;
const PARALLEL_READS = 3;
const ENDED = ["success", "failed"];

// An error whose message is written for the person who looks at the page.
export class PageError extends Error {}

// missing, forbidden: what to return if Airflow does not have it, or does not show it to this person.
async function get(path, { missing, forbidden } = {}) {
  let response;
  try {
    response = await fetch(new URL(path, API), { headers: { Accept: "application/json" }, credentials: "same-origin" });
  } catch {
    throw new PageError("Airflow did not respond. Check your network connection.");
  }
  if (response.status === 404 && missing !== undefined) return missing;
  if (response.status === 403 && forbidden !== undefined) return forbidden;
  if (response.status === 401) throw new PageError("You are not signed in to Airflow, so there is nothing to show. Sign in, then reload this page.");
  if (response.status === 403) throw new PageError("Your Airflow role may not read this: it needs permission to read Dag runs, task instances and XComs of the Dags that use Tavus.");
  if (!response.ok) throw new PageError(`Airflow responded with status ${response.status} to GET ${path.split("?")[0]}.`);
  return response.json();
}

const segment = encodeURIComponent;

export const runKey = ({ dag_id, dag_run_id }) => `${dag_id} ${dag_run_id}`;

const runOf = ({ dag_id, dag_run_id }) => `dags/${segment(dag_id)}/dagRuns/${segment(dag_run_id)}`;

// Does some work for each item, for a few at the same time.
export async function inParallel(items, work) {
  const waiting = [...items];
  await Promise.all(Array.from({ length: PARALLEL_READS }, async () => {
    while (waiting.length) await work(waiting.shift());
  }));
}

// What a task of this provider does: "plan", "apply" ...; undefined for any other task.
export const kindOf = (task) => Object.keys(OPERATORS).find((kind) => OPERATORS[kind] === (task.operator_name ?? task.operator));

// XComs of ended tasks by task, attempt and key: they do not change.
const kept = new Map();

export function forget() {
  kept.clear();
  structures.clear();
}

// Returns the value of an XCom, or null if the task has not pushed it.
export function readXCom(task, key = "return_value") {
  if (!ENDED.includes(task.state)) return requestXCom(task, key);
  const name = [task.id, task.try_number, task.state, key].join(" ");
  if (!kept.has(name)) kept.set(name, requestXCom(task, key).catch((error) => { kept.delete(name); throw error; }));
  return kept.get(name);
}

async function requestXCom(task, key) {
  if (![...ENDED, "running", "up_for_retry", "skipped"].includes(task.state)) return null;
  const entry = await get(`${runOf(task)}/taskInstances/${segment(task.task_id)}/xcomEntries/${segment(key)}?map_index=${task.map_index}`, { missing: null });
  const value = entry?.value ?? null;
  try {
    return typeof value === "string" ? JSON.parse(value) : value;
  } catch {
    return value; // a text that is no JSON
  }
}

// Tasks are found by the class of their operator, in all DAGs. Batches are not among these kinds, so their
// number does not matter.
async function readNewest(kinds, { offset, limit }) {
  const query = new URLSearchParams({ limit, offset, order_by: "-run_after" });
  kinds.forEach((kind) => query.append("operator", OPERATORS[kind]));
  const read = await get(`dags/~/dagRuns/~/taskInstances?${query}`);
  return { tasks: read.task_instances, more: read.task_instances.length > 0 && offset + read.task_instances.length < read.total_entries };
}

export const readPlans = (offset = 0) => readNewest(["plan", "look"], { offset, limit: TASKS_PER_READ });
export const readApprovalTasks = () => readNewest(["approve"], { offset: 0, limit: DELETES_PER_READ });
export const readErasurePlans = () => readNewest(["planErasure"], { offset: 0, limit: ERASURES_PER_READ });
export const readDeletes = () => readNewest(["delete"], { offset: 0, limit: DELETES_PER_READ });

// Returns the first tasks of a run: { tasks, total }. Tasks that are not mapped come first.
export async function readTasks(run) {
  const read = await get(`${runOf(run)}/taskInstances?limit=${TASKS_PER_READ}`, { missing: { task_instances: [], total_entries: 0 } });
  return { tasks: read.task_instances, total: read.total_entries };
}

// Returns failed tasks of a run, and how many there are: { tasks, total }.
export async function readFailedTasks(run) {
  const read = await get(`${runOf(run)}/taskInstances?state=failed&limit=${FAILED_PER_READ}`);
  return { tasks: read.task_instances, total: read.total_entries };
}

export async function readRuns(dagId) {
  const query = new URLSearchParams({ limit: RUNS_PER_READ, order_by: "-run_after" });
  return (await get(`dags/${segment(dagId)}/dagRuns?${query}`, { missing: { dag_runs: [] } })).dag_runs;
}

export const readRun = (run) => get(runOf(run), { missing: null });
export const readDag = (dagId) => get(`dags/${segment(dagId)}/details`, { missing: null, forbidden: null });
// The health of Airflow, null if it cannot be read: it is a hint only.
export const readHealth = () => get("monitor/health", { missing: null, forbidden: null }).catch(() => null);

// The tasks of a Dag and what follows each: [{ task_id, downstream_task_ids }], null if this person may not see it.
const structures = new Map();
export function readStructure(dagId) {
  if (!structures.has(dagId)) structures.set(dagId, get(`dags/${segment(dagId)}/tasks`, { missing: null, forbidden: null }).then((read) => read?.tasks ?? null, () => null));
  return structures.get(dagId);
}

// Returns what people were asked in a run, and what they answered; null if this person may not see that.
export const readApprovals = async (run) => (await get(`${runOf(run)}/hitlDetails`, { missing: { hitl_details: [] }, forbidden: { hitl_details: null } })).hitl_details;

export const dagPath = ({ dag_id }) => `dags/${segment(dag_id)}`;
export const runPath = (run) => `${dagPath(run)}/runs/${segment(run.dag_run_id)}`;
export const taskPath = (task) => `${runPath(task)}/tasks/${segment(task.task_id)}${task.map_index >= 0 ? `/mapped/${task.map_index}` : ""}`;
