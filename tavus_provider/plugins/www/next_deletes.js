// What is deleted next: by runs that are under way, then by the next run of each Dag with a schedule. A number of a
// run that has no plan yet comes from the forecast of the newest plan of its Dag. Nothing here touches the page.

import { dagPath, runPath, taskPath } from "./airflow.js";
import { escapeText, formatName, number, plural, time, timeNear } from "./format.js";
import { outcomeLabel, totals } from "./labels.js";
import { exceededLimit, narrowing, plannedCount } from "./plan.js";
import { approvalTask, describe, isUnderWay } from "./run_state.js";

const NAMES_SHOWN = 3;
const NAME_LENGTH = 40;

const kindOfDelete = (hard) => (hard ? "permanently" : "by soft delete");

// The Dags that run by themselves, the next run first.
export const scheduledDags = (dags) => (dags ?? []).filter(({ is_paused, next_dagrun_run_after }) => !is_paused && next_dagrun_run_after)
  .sort((a, b) => (a.next_dagrun_run_after < b.next_dagrun_run_after ? -1 : 1));

// Whether the forecast of a plan is one of its Dag: a form did not narrow it.
export const isOfItsDag = ({ plan, run }, forecast) => Boolean(plan) && (run?.run_type === "scheduled" || !narrowing(plan, forecast?.narrowed_by));

const shorten = (name) => ([...name].length > NAME_LENGTH ? `${[...name].slice(0, NAME_LENGTH).join("")}…` : name);

function names(rows, count) {
  const shown = (rows ?? []).slice(0, NAMES_SHOWN).map((row) => shorten(formatName(row.replica_name ?? row.replica_id)));
  const more = count - shown.length;
  return shown.length ? `${shown.join(", ")}${more > 0 ? ` and ${number(more)} more` : ""}` : "";
}

const amount = (count, hard) => `${plural(count, "replica")} ${kindOfDelete(hard)}`;

// A run that deletes now, or that waits for an approval; null for any other.
function underWay(details) {
  const { plan, run, task } = details;
  const count = plannedCount(plan);
  if (!count || !isUnderWay(details)) return null;
  const { tone, words } = describe(details);
  const base = { dag: escapeText(task.dag_id), path: runPath(run), tone, amount: amount(count, plan.hard) };
  const text = names(plan.delete, count);
  if (tone !== "waiting") return { ...base, when: "Now", what: base.amount, text: `${text ? `${text}; ` : ""}the run ${words}` };
  const end = plan.valid_until ? `${text ? "; " : ""}open until ${timeNear(plan.valid_until, new Date())}` : "";
  return {
    ...base, when: "On approval", what: `${base.amount}, as soon as a person approves`, text: `${text}${end}`,
    action: { path: `${taskPath(approvalTask(details))}/required_actions`, text: "Open the approval" },
  };
}

// What that plan itself was to delete is gone if its run has deleted, but for what is unfinished.
const hasDeleted = ({ report }) => Boolean(report) && !report.dry_run;
const daysAhead = (details, forecast) => forecast.dates.filter(({ date }) => !hasDeleted(details) || date > forecast.begins_at.slice(0, 10));

// How many replicas go in the next 30 days by the forecast of a plan, without those that its run has deleted; null if
// it is not known.
export function deletesIn30Days(details, forecast) {
  if (typeof forecast?.next_30_days !== "number" || !forecast.dates) return null;
  if (!details || !hasDeleted(details)) return forecast.next_30_days;
  const first = forecast.dates[0]?.date === forecast.begins_at.slice(0, 10) ? forecast.dates[0].count : 0;
  return forecast.next_30_days - first + totals(details.report.counts).unfinished;
}

// The lines about the next run of a Dag. `details` and `forecast` are those of its newest plan, null if it has none;
// `failed` says what went wrong if the latest run has failed.
function nextRun({ dag, details, forecast, failed }) {
  const at = dag.next_dagrun_run_after;
  const isDue = new Date(at) < Date.now();
  const base = {
    dag: escapeText(dag.dag_id), path: dagPath(dag), when: isDue ? "Now due" : time(at), note: isDue ? `, due since ${time(at)}` : "",
    tone: "todo", text: "", warning: failed ? `The latest run failed: ${failed}.` : null,
  };
  if (!details) return [{ ...base, what: "not known", text: "no plan of the whole policy was read" }];
  const { plan, report, run } = details;
  if (report?.dry_run && run?.run_type === "scheduled") return [{ ...base, what: "nothing", text: `a dry run, as on ${time(run.run_after).slice(0, 10)}` }];
  if (!forecast?.dates) return [{ ...base, what: `what its plan finds then, ${kindOfDelete(plan.hard)}`, text: escapeText(forecast?.notice ?? "the newest plan has no forecast") }];
  const day = at.slice(0, 10);
  const stop = forecast.stops?.find(({ first, last }) => first <= day && day <= last);
  if (stop) return [{ ...base, tone: "failed", warning: null, what: "nothing", text: `expected to stop at a limit: ${exceededLimit(plan) ?? escapeText(stop.reason)}` }];
  const dates = daysAhead(details, forecast);
  const due = [...(hasDeleted(details) ? unfinished(details) : []), ...dates.filter(({ date }) => date <= day)];
  const count = due.reduce((total, one) => total + one.count, 0);
  const planned = (rows, number) => ({
    amount: amount(number, plan.hard), what: `${amount(number, plan.hard)}${failed ? ", only if the cause of the failure is gone" : ""}`,
    text: `${names(rows, number)}, unless used before then${report?.dry_run ? "; the latest run was a dry run of a person" : ""}`,
  });
  if (count) return [{ ...base, ...planned(due.flatMap(({ replicas }) => replicas), count) }];
  const [first] = dates;
  const nothing = { ...base, what: "nothing", text: first ? "nothing is due" : `nothing expires in ${number(forecast.days)} days` };
  return first ? [nothing, { ...base, note: "", warning: null, when: first.date, ...planned(first.replicas, first.count) }] : [nothing];
}

// What the run of a plan has left, in the form of a date of a forecast.
function unfinished({ plan, report }) {
  const rows = new Map((plan.delete ?? []).map((row) => [row.replica_id, row]));
  const left = (report.items ?? []).filter(({ outcome }) => outcomeLabel(outcome).unfinished);
  return [{ count: totals(report.counts).unfinished, replicas: left.map(({ replica_id }) => rows.get(replica_id) ?? { replica_id }) }];
}

// Why nothing runs by itself.
function unscheduled(dags) {
  const paused = (dags ?? []).filter(({ is_paused, next_dagrun_run_after }) => is_paused && next_dagrun_run_after).map(({ dag_id }) => escapeText(dag_id));
  return paused.length ? `${paused.join(", ")} ${paused.length === 1 ? "is" : "are"} paused` : "a run starts only when a person triggers it";
}

// Returns [{ when, what, text, dag, path, note, tone, action, warning }], the next one first. `runs` are details of runs,
// `planned` is [{ dag, details, forecast, failed }] of the Dags with a schedule, undefined while they are read; then
// only runs under way are returned.
export function nextDeletes({ runs, dags, planned }) {
  const now = runs.map(underWay).filter(Boolean);
  if (!planned) return now;
  const coming = planned.flatMap(nextRun);
  return coming.length ? [...now, ...coming] : [...now, { when: now.length ? "After that" : "No date", what: "nothing is scheduled", text: unscheduled(dags), tone: "todo" }];
}
