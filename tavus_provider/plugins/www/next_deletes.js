// What is deleted next: by runs that are under way, then by the next run of each Dag with a schedule. A number of a
// run that has no plan yet comes from the forecast of the newest plan of its Dag. Nothing here touches the page.

import { dagPath, runPath, taskPath } from "./airflow.js";
import { escapeText, formatName, number, plural, time, timeNear } from "./format.js";
import { narrowing, plannedCount } from "./plan.js";
import { approvalTask, describe, isUnderWay } from "./run_state.js";

const NAMES_SHOWN = 3;

const isScheduled = ({ is_paused, next_dagrun_run_after }) => !is_paused && Boolean(next_dagrun_run_after);
const kindOfDelete = (hard) => (hard ? "permanently" : "by soft delete");

// The Dags that run by themselves, the next run first.
export const scheduledDags = (dags) => (dags ?? []).filter(isScheduled)
  .sort((a, b) => (a.next_dagrun_run_after < b.next_dagrun_run_after ? -1 : 1));

// Whether the forecast of a plan is one of its Dag: a form did not narrow it.
export const isOfItsDag = ({ plan }) => Boolean(plan) && !narrowing(plan);

function names(rows, count) {
  const shown = (rows ?? []).slice(0, NAMES_SHOWN).map((row) => formatName(row.replica_name ?? row.replica_id));
  const more = count - shown.length;
  return shown.length ? `${shown.join(", ")}${more > 0 ? ` and ${number(more)} more` : ""}` : "";
}

// A run that deletes now, or that waits for an approval; null for any other.
function underWay(details) {
  const { plan, run, task } = details;
  const count = plannedCount(plan);
  if (!count || !isUnderWay(details)) return null;
  const { tone, words } = describe(details);
  const base = { dag: escapeText(task.dag_id), path: runPath(run), text: names(plan.delete, count), tone };
  const what = `${plural(count, "replica")} ${kindOfDelete(plan.hard)}`;
  if (tone === "waiting") {
    const end = plan.valid_until ? `, if approved by ${timeNear(plan.valid_until, new Date())}` : "";
    return { ...base, when: "On approval", what: `${what}${end}`, action: { path: `${taskPath(approvalTask(details))}/required_actions`, text: "Open the approval" } };
  }
  return { ...base, when: "Now", what: `${what}: the run ${words}` };
}

// The next run of a Dag: `details` and `forecast` are those of its newest plan; null if it has none.
function nextRun({ dag, details, forecast }) {
  const at = dag.next_dagrun_run_after;
  const base = { dag: escapeText(dag.dag_id), path: dagPath(dag), when: `${time(at)}${new Date(at) < Date.now() ? ", due" : ""}`, tone: "todo", text: "" };
  if (!details) return { ...base, what: "not known: no plan of this Dag has been read" };
  const { plan, report, run } = details;
  if (report?.dry_run && run?.run_type === "scheduled") return { ...base, what: "nothing: its runs are dry runs" };
  if (!forecast?.dates) return { ...base, what: `what its plan finds then, ${kindOfDelete(plan.hard)}`, text: escapeText(forecast?.notice ?? "The newest plan has no forecast") };
  const day = at.slice(0, 10);
  const stop = forecast.stops?.find(({ first, last }) => first <= day && day <= last);
  if (stop) return { ...base, tone: "failed", what: "nothing: it will stop at a limit", text: escapeText(stop.reason) };
  // What that plan itself was to delete is gone if its run has deleted.
  const begin = report && !report.dry_run ? forecast.begins_at?.slice(0, 10) ?? "" : "";
  const dates = forecast.dates.filter(({ date }) => date > begin);
  const due = dates.filter(({ date }) => date <= day);
  const count = due.reduce((total, one) => total + one.count, 0);
  if (count) return { ...base, what: `${plural(count, "replica")} ${kindOfDelete(plan.hard)}`, text: `${names(due.flatMap(({ replicas }) => replicas), count)}, unless used until then` };
  const [first] = dates;
  return { ...base, what: "nothing is due", text: first ? `the first on ${first.date}: ${names(first.replicas, first.count)}, ${kindOfDelete(plan.hard)}` : `nothing in ${number(forecast.days)} days` };
}

// Why nothing runs by itself.
function unscheduled(dags) {
  const paused = (dags ?? []).filter(({ is_paused, next_dagrun_run_after }) => is_paused && next_dagrun_run_after).map(({ dag_id }) => escapeText(dag_id));
  return paused.length ? `${paused.join(", ")} ${paused.length === 1 ? "is" : "are"} paused` : "a run starts only when a person triggers it";
}

// Returns [{ when, what, text, dag, path, tone, action }], the next one first. `runs` are details of runs, `planned` is
// [{ dag, details, forecast }] of the Dags with a schedule, undefined while they are read.
export function nextDeletes({ runs, dags, planned }) {
  const now = runs.map(underWay).filter(Boolean);
  if (!planned) return now;
  const coming = planned.map(nextRun);
  return coming.length ? [...now, ...coming] : [...now, { when: now.length ? "Then" : "Not planned", what: "no run is scheduled", text: unscheduled(dags), tone: "todo" }];
}
