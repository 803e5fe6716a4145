// What is deleted next: by runs that are under way or wait for an approval, then by the next run of each Dag with a
// schedule. A number of a run that has no plan yet comes from the forecast of the newest plan of its Dag. Nothing here
// touches the page.

import { dagPath, runPath, taskPath } from "./airflow.js";
import { escapeText, formatName, number, plural, time, timeNear } from "./format.js";
import { outcomeLabel, totals } from "./labels.js";
import { exceededLimit, narrowing, plannedCount } from "./plan.js";
import { approvalTask, describe, isApproval, isUnderWay } from "./run_state.js";

const NAMES_SHOWN = 3;
const NAME_LENGTH = 40;
const HOUR = 3_600_000;
const DAY = 24 * HOUR;

const kindOfDelete = (hard) => (hard ? "permanently" : "by soft delete");
const amount = (count, hard) => `${plural(count, "replica")} ${kindOfDelete(hard)}`;
// The number of replicas, if only its bounds are known.
function range(least, most, hard) {
  if (least === most) return amount(most, hard);
  return least ? `${number(least)} to ${amount(most, hard)}` : `up to ${amount(most, hard)}`;
}

// Airflow 3.1 names no next run while as many runs as allowed are under way, and a Dag that waits for an asset has none.
const hasSchedule = ({ next_dagrun_run_after, timetable_summary }) => Boolean(next_dagrun_run_after) || !["None", null, undefined].includes(timetable_summary);

// The Dags that run by themselves, the next run first.
export const scheduledDags = (dags) => (dags ?? []).filter((dag) => !dag.is_paused && hasSchedule(dag))
  .sort((a, b) => ((a.next_dagrun_run_after ?? "") < (b.next_dagrun_run_after ?? "") ? -1 : 1));

// Whether the forecast of a plan is one of its Dag: a form did not narrow it. A stored plan has no policy here.
const isNarrowed = (plan, forecast) => (forecast?.narrowed_by ? forecast.narrowed_by.length > 0 : Boolean(narrowing(plan)));
export const isOfItsDag = ({ plan, run }, forecast) => Boolean(plan) && (run?.run_type === "scheduled" || !isNarrowed(plan, forecast));

const shorten = (name) => ([...name].length > NAME_LENGTH ? `${[...name].slice(0, NAME_LENGTH).join("")}…` : name);

function names(rows, count) {
  const shown = (rows ?? []).slice(0, NAMES_SHOWN).map((row) => shorten(formatName(row.replica_name ?? row.replica_id)));
  const more = count - shown.length;
  return shown.length ? `${shown.join(", ")}${more > 0 ? ` and ${number(more)} more` : ""}` : "";
}

const waits = (details) => describe(details).tone === "waiting";
const isDryRun = ({ run, report }) => report?.dry_run ?? run?.conf?.dry_run === true;
const isRejected = ({ approval }) => Boolean(approval?.response_received) && !isApproval(approval);

// A run that deletes now, or that waits for an approval; null for any other.
function underWay(details) {
  const { plan, run, task } = details;
  const count = plannedCount(plan);
  if (!count || !isUnderWay(details) || isDryRun(details) || isRejected(details)) return null;
  const { tone, words } = describe(details);
  const base = { dag: escapeText(task.dag_id), path: runPath(run), tone, isSoft: !plan.hard, amount: amount(count, plan.hard) };
  const text = names(plan.delete, count);
  if (tone !== "waiting") return { ...base, when: "Now", what: base.amount, text: [text, `state: ${words}`].filter(Boolean).join("; ") };
  const end = plan.valid_until ? `open until ${timeNear(plan.valid_until, new Date())}` : null;
  return {
    ...base, when: "On approval", what: `${base.amount}, as soon as a person approves`, text: [text, end].filter(Boolean).join("; "),
    action: { path: `${taskPath(approvalTask(details))}/required_actions`, text: "Open the approval" },
  };
}

const waitingErasure = ({ request, run }) => ({
  when: "On approval", tone: "waiting", what: `the erasure request ${escapeText(request)}, permanently, as soon as a person approves`, text: "", dag: escapeText(run.dag_id), path: runPath(run),
});

// What a plan was to delete is gone if its run has deleted, but for what is unfinished, or if it deletes now.
const hasDeleted = (details) => !isDryRun(details) && (Boolean(details.report) || (isUnderWay(details) && !waits(details)));
const datesAhead = (details, forecast) => forecast.dates.filter(({ date }) => !hasDeleted(details) || date > forecast.begins_at.slice(0, 10));

// What the run of a plan has not deleted, in the form of a date of a forecast.
function unfinished({ plan, report }) {
  const rows = new Map((plan.delete ?? []).map((row) => [row.replica_id, row]));
  const left = (report?.items ?? []).filter(({ outcome }) => outcomeLabel(outcome).unfinished);
  return { count: totals(report?.counts).unfinished, replicas: left.map(({ replica_id }) => rows.get(replica_id) ?? { replica_id }) };
}

// How many replicas will be deleted in 30 days by the forecast of a plan, without those that its run has deleted; null
// if that is not known.
export function deletesIn30Days(details, forecast) {
  if (!details?.plan || !forecast?.dates || !isOfItsDag(details, forecast)) return null;
  if (!hasDeleted(details)) return forecast.next_30_days;
  const first = forecast.dates[0]?.date === forecast.begins_at.slice(0, 10) ? forecast.dates[0].count : 0;
  return forecast.next_30_days - first + unfinished(details).count;
}

// The last date of a forecast whose deletes the next run makes for certain, and the last whose deletes it may make: a
// date stands for a run at the time of day of the plan, give or take an hour.
function lastDates(forecast, at) {
  const begin = Date.parse(forecast.begins_at);
  const ahead = Math.max(Date.parse(at ?? forecast.begins_at), Date.now()) - begin;
  const dateOf = (days) => new Date(begin + Math.max(0, days) * DAY).toISOString().slice(0, 10);
  return [dateOf(Math.floor((ahead + HOUR) / DAY)), dateOf(Math.ceil((ahead - HOUR) / DAY))];
}

// The lines about the next run of a Dag. `details` and `forecast` are those of its newest plan, null if it has none;
// `failed` says what went wrong if the latest run has failed.
function nextRun({ dag, details, forecast, failed }) {
  const at = dag.next_dagrun_run_after;
  const isDue = at && new Date(at) < Date.now();
  const base = {
    at: at && !isDue ? at : "", when: isDue ? "Now due" : at ? time(at) : "No date yet", note: isDue ? `, due since ${time(at)}` : at ? "" : `, schedule ${escapeText(dag.timetable_summary)}`,
    dag: escapeText(dag.dag_id), path: dagPath(dag), tone: "todo", text: "", warning: failed ? `The latest run failed: ${failed}.` : null,
  };
  if (!details) return [{ ...base, what: "not known", text: "none of its newest plans is of the whole policy" }];
  const { plan, run } = details;
  if (!forecast?.dates) return [{ ...base, isSoft: !plan.hard, what: `not known, ${kindOfDelete(plan.hard)}`, text: escapeText(forecast?.notice ?? "the newest plan has no forecast") }];
  const [certain, possible] = lastDates(forecast, at);
  const stop = forecast.stops?.find(({ first, last }) => first <= certain && certain <= last);
  if (stop) return [{ ...base, tone: "failed", warning: null, what: "nothing", text: `expected to stop at a limit: ${exceededLimit(plan) ?? escapeText(stop.reason)}` }];
  const conditions = [
    failed ? ", only if the cause of the failure is gone" : "",
    approvalTask(details) ? ", if a person approves" : "",
    isDryRun(details) ? `, unless it is a dry run, as the run of ${time(run?.run_after).slice(0, 10)} was` : "",
  ].join("");
  const expected = (rows, most, least = most) => ({
    isSoft: !plan.hard, amount: range(least, most, plan.hard), what: `${range(least, most, plan.hard)}${conditions}`, text: `${names(rows, most)}, unless used before then`,
  });
  const dates = datesAhead(details, forecast);
  const dueUntil = (last) => [...(hasDeleted(details) ? [unfinished(details)] : []), ...dates.filter(({ date }) => date <= last)];
  const countUntil = (last) => dueUntil(last).reduce((total, { count }) => total + count, 0);
  if (countUntil(possible)) return [{ ...base, ...expected(dueUntil(possible).flatMap(({ replicas }) => replicas), countUntil(possible), countUntil(certain)) }];
  const [first] = dates;
  const nothing = { ...base, what: "nothing is due", text: first ? "" : `nothing expires in ${number(forecast.days)} days` };
  return first ? [nothing, { ...base, at: first.date, when: `From ${first.date}`, note: "", warning: null, ...expected(first.replicas, first.count) }] : [nothing];
}

// Why nothing runs by itself.
function unscheduled(dags) {
  const paused = dags.filter((dag) => dag.is_paused && hasSchedule(dag)).map(({ dag_id }) => escapeText(dag_id));
  return paused.length ? `${paused.join(", ")} ${paused.length === 1 ? "is" : "are"} paused` : "a run starts only when it is triggered";
}

// Returns [{ when, what, amount, isSoft, text, dag, path, note, tone, action, warning }], the next one first. `runs` are details
// of runs, `erasures` rows of erasure requests, `dags` the Dags of the account that were read, `dagCount` the number of
// all, and `planned` is [{ dag, details, forecast, failed }] of those with a schedule; undefined while they are read, and
// then only what is under way is returned.
export function nextDeletes({ runs, erasures = [], dags, dagCount, planned }) {
  const now = [...runs.map(underWay).filter(Boolean), ...erasures.filter(({ isWaiting }) => isWaiting).map(waitingErasure)];
  if (!planned || !dags) return now;
  const coming = planned.flatMap(nextRun).sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0));
  const notRead = dagCount - dags.length;
  if (notRead > 0) coming.push({ when: "", what: "not known", text: `for ${plural(notRead, "more Dag")} of this account, which could not be read or are too many`, tone: "todo" });
  return coming.length ? [...now, ...coming] : [...now, { when: now.length ? "After that" : "No date", what: "nothing is scheduled", text: unscheduled(dags), tone: "todo" }];
}
