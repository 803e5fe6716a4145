// Everything that is known about one run: its state, tasks, answer, plan, verdicts and report.

import { kindOf, readApprovals, readFailedTasks, readRun, readStructure, readTasks, readXCom } from "./airflow.js";
import { hasSeveralPlanTasks, isShared, ownTask } from "./accounts.js";
import { isPlan } from "./plan.js";
import { approvalTask, failedTask } from "./run_state.js";

const MAX_REPORTS = 3;
const ENDED = ["success", "failed"];

const addCounts = (into, counts) => Object.entries(counts).forEach(([name, count]) => { into[name] = (into[name] ?? 0) + count; });

// Adds up the reports of tasks without a summary, at most a few: { counts, items, dry_run, notice }.
async function addReports(tasks, plan, run) {
  // A task that had started is skipped if its run reaches its time limit.
  const isEnded = ({ state, try_number }) => ENDED.includes(state) || (state === "skipped" && run?.state === "failed" && try_number > 0);
  const ended = tasks.filter(isEnded);
  const values = await Promise.all(ended.slice(0, MAX_REPORTS).map((task) => readXCom(task)));
  const reports = values.filter((report) => report?.counts && (!plan?.digest || report.plan_digest === plan.digest));
  const single = values.filter((result) => result?.outcome && !result.counts);
  if (!reports.length && !single.length) return null;
  const sum = { counts: {}, items: [...reports.flatMap(({ items }) => items ?? []), ...single], dry_run: reports.length > 0 && reports.every(({ dry_run }) => dry_run) };
  reports.forEach(({ counts }) => addCounts(sum.counts, counts));
  single.forEach(({ outcome }) => addCounts(sum.counts, { [outcome]: 1 }));
  if (ended.length > MAX_REPORTS) sum.notice = `The numbers are of ${MAX_REPORTS} of ${ended.length} tasks. Add a summary task to see all.`;
  return sum;
}

// The report of the whole plan: that of the summary task, whatever the number of batches; else those of the tasks that delete.
async function readReport(tasks, plan, run) {
  const summary = tasks.find((task) => kindOf(task) === "summary");
  const report = summary && ENDED.includes(summary.state) ? await readXCom(summary) : null;
  if (report?.counts) return report;
  return addReports(tasks.filter((task) => ["apply", "delete"].includes(kindOf(task))), plan, run);
}

// Reads one run. `known` has what was read before: the Dag run, if its state is not to be read again.
export async function readDetails(entry, connection, { run = null } = {}) {
  const plans = entry.kind === "delete" ? null : readXCom(entry.task);
  plans?.catch(() => {});
  const [dagRun, read] = await Promise.all([run ?? readRun(entry.task), readTasks(entry.task)]);
  const isOwn = await ownTasks(entry, connection, read.tasks);
  const tasks = read.tasks.filter(isOwn);
  const details = { isShared: isShared(read.tasks), isPartly: read.total > read.tasks.length, entry, run: dagRun, task: tasks.find(({ id }) => id === entry.task.id) ?? entry.task, tasks, failed: null, approval: null, plan: null, verdicts: null, report: null, error: null };
  const approve = approvalTask(details);
  const asked = approve && !["skipped", "upstream_failed", null].includes(approve.state);
  const [plan, approvals, failed] = await Promise.all([
    // The state of the task may be newer than that in the entry.
    plans ? plans.then((value) => value ?? (details.task.state === entry.task.state ? null : readXCom(details.task))) : null,
    asked ? readApprovals(entry.task) : [],
    dagRun?.state === "failed" && read.total > read.tasks.length ? readFailedTasks(entry.task) : null,
  ]);
  details.plan = isPlan(plan) ? plan : null;
  details.approval = approvals?.find(({ task_instance: { id, task_id, map_index } }) => id === approve?.id || (task_id === approve?.task_id && map_index === approve?.map_index)) ?? null;
  details.answerHidden = approvals === null;
  details.failed = failed && details.isShared ? { tasks: failed.tasks.filter(isOwn), total: failed.tasks.filter(isOwn).length } : failed;
  const culprit = dagRun?.state === "failed" ? failedTask(details) : null;
  const [report, error] = await Promise.all([readReport(tasks, details.plan, dagRun), culprit && kindOf(culprit) ? readXCom(culprit, "error") : null]);
  return Object.assign(details, { report, error });
}

// Reads the state of a run and of its tasks only.
export async function readStatus(entry, connection) {
  const [run, read] = await Promise.all([readRun(entry.task), readTasks(entry.task)]);
  return { run, tasks: read.tasks.filter(await ownTasks(entry, connection, read.tasks)) };
}

const ownTasks = async (entry, connection, tasks) => ownTask(entry, connection, tasks, hasSeveralPlanTasks(tasks) ? await readStructure(entry.task.dag_id) : null);

// What a run is, without its duration: while it is the same, nothing needs to be read again.
export const signature = ({ run, tasks }) => JSON.stringify([run?.state, tasks.map(({ id, state, try_number }) => [id, state, try_number])]);
