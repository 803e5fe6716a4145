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

const kindOfDelete = (hard) => (hard ? "permanently" : "soft delete");
const amount = (count, hard) => `${plural(count, "replica")}, ${kindOfDelete(hard)}`;
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
  const base = { dag: escapeText(task.dag_id), path: runPath(run), tone, isSoft: !plan.hard, amount: amount(count, plan.hard), what: amount(count, plan.hard), names: names(plan.delete, count) };
  if (tone !== "waiting") return { ...base, when: "Now", notes: [`The run ${words}.`] };
  const end = plan.valid_until ? ` until ${timeNear(plan.valid_until, new Date())}` : "";
  return {
    ...base, when: "If approved", notes: [`Waits for a person to approve it${end}; without an answer nothing is deleted.`],
    action: { path: `${taskPath(approvalTask(details))}/required_actions`, text: "Open the approval" }, waitingIds: (plan.delete ?? []).map(({ replica_id }) => replica_id),
  };
}

const waitingErasure = ({ request, run }) => ({
  when: "If approved", tone: "waiting", what: `Erasure request ${escapeText(request)}, permanently`, notes: ["Waits for a person to approve it."], dag: escapeText(run.dag_id), path: runPath(run),
});

// What a plan was to delete is gone if its run has deleted, but for what is unfinished, or if it deletes now.
const hasDeleted = (details) => !isDryRun(details) && (Boolean(details.report) || (isUnderWay(details) && !waits(details)));
// The dates of a forecast on which the deletes are still to come. The forecast names only some replicas of a date, the
// plan all of its own.
const datesAhead = (details, forecast) => forecast.dates.filter(({ date }) => !hasDeleted(details) || date > forecast.begins_at.slice(0, 10))
  .map((one) => (one.date === forecast.begins_at.slice(0, 10) && details.plan.delete?.length === one.count ? { ...one, replicas: details.plan.delete } : one));

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

// Whether the next run of a Dag is a dry run: the schedule starts it with the values of its params. Without such a param
// nobody can say it; the latest run was one or not.
const isNextDryRun = ({ params }) => params?.dry_run?.value === true;
const mayBeDryRun = ({ params }, details) => typeof params?.dry_run?.value !== "boolean" && isDryRun(details);

// Why a run that is due has not started.
function lateness({ next_dagrun_run_after: at, active_runs_count: active, max_active_runs: most }, health) {
  const since = `Due since ${timeNear(at, new Date())}`;
  if (active >= most) return `${since}; starts when the run of this Dag that is under way has ended.`;
  if (health?.scheduler?.status === "unhealthy") return `${since}, not started: the scheduler of Airflow is not running.`;
  return `${since}, not started yet.`;
}

function failureNote({ words, isBlocked }) {
  return isBlocked ? `Blocked: the latest run failed (${words}).` : `May fail again: the latest run failed (${words}).`;
}

// What is said about replicas that also wait for an approval; empty if there are none.
function overlap(rows, count, waitingIds) {
  const both = rows.filter(({ replica_id }) => waitingIds.has(replica_id)).length;
  if (!both) return "";
  const who = both === count ? (count === 1 ? "It also waits" : "All of them also wait") : rows.length === count ? `${number(both)} of them also wait` : "Some of them also wait";
  return `. ${who} for the approval above`;
}

// The line about the next run of a Dag. `details` and `forecast` are those of its newest plan, null if it has none;
// `failed` says what went wrong if the latest run has failed.
function nextRun({ dag, details, forecast, failed, health }, waitingIds) {
  const at = dag.next_dagrun_run_after;
  const isDue = at && new Date(at) < Date.now();
  const base = {
    at: at && !isDue ? at : "", when: isDue ? "Overdue" : at ? time(at) : "No date yet", dag: escapeText(dag.dag_id), path: dagPath(dag), tone: isDue ? "overdue" : "todo",
    warning: failed ? failureNote(failed) : null, names: "",
  };
  const start = isDue ? lateness(dag, health) : at ? null : `Starts by its schedule, ${escapeText(dag.timetable_summary)}.`;
  const line = (fields, ...notes) => ({ ...base, ...fields, notes: [start, ...notes].filter(Boolean) });
  if (!details) return line({ what: "Not known" }, "Its newest runs have no plan of the whole policy: they failed, or a form narrowed them.");
  const { plan, run } = details;
  if (!forecast?.dates) return line({ isSoft: !plan.hard, what: `Number not known, ${kindOfDelete(plan.hard)}` }, `${escapeText(forecast?.notice ?? "The newest plan has no forecast")}.`);
  const [certain, possible] = lastDates(forecast, at);
  const stop = forecast.stops?.find(({ first, last }) => first <= certain && certain <= last);
  if (stop) return line({ tone: "failed", what: "Nothing: a limit stops it", warning: `${exceededLimit(plan) ?? escapeText(stop.reason)}.` }, "A person must look, then raise the limits or narrow the policy.");
  const dates = datesAhead(details, forecast);
  const dueUntil = (last) => [...(hasDeleted(details) ? [unfinished(details)] : []), ...dates.filter(({ date }) => date <= last)];
  const countUntil = (last) => dueUntil(last).reduce((total, { count }) => total + count, 0);
  const most = countUntil(possible);
  const [first] = dates;
  const due = most ? { rows: dueUntil(possible).flatMap(({ replicas }) => replicas), most, least: countUntil(certain) }
    : first ? { rows: first.replicas, most: first.count, least: first.count } : null;
  if (!due) return line({ what: "Nothing" }, `Nothing expires in ${number(forecast.days)} days.`);
  const said = range(due.least, due.most, plan.hard);
  const named = `${names(due.rows, due.most)}, unless used before then${overlap(due.rows, due.most, waitingIds)}`;
  if (isNextDryRun(dag)) return line({ isDry: true, what: "Nothing: a dry run", warning: null, names: named }, `Without dry run it would delete ${said}${most ? "" : `, from ${first.date} on`}.`);
  const expected = { isSoft: !plan.hard, amount: said, what: said, names: named };
  const conditions = [
    approvalTask(details) ? "Only if a person approves it." : null,
    mayBeDryRun(dag, details) ? `Nothing if it is a dry run, as the run of ${time(run?.run_after).slice(0, 10)} was.` : null,
  ];
  if (most) return line(expected, ...conditions);
  const later = { ...expected, at: first.date, when: `${first.date} or later`, tone: "todo" };
  return { ...line(later, ...conditions), notes: [`${at ? `The run of ${time(at)}` : "The next run"} finds nothing expired yet.`, ...conditions].filter(Boolean) };
}

// Why nothing runs by itself.
function unscheduled(dags) {
  const paused = dags.filter((dag) => dag.is_paused && hasSchedule(dag)).map(({ dag_id }) => escapeText(dag_id));
  return paused.length ? `${paused.join(", ")} ${paused.length === 1 ? "is" : "are"} paused` : "A run starts only when it is triggered";
}

// Returns [{ when, what, amount, isSoft, isDry, warning, notes, names, dag, path, tone, action }], the next one first: `what`
// is the outcome, `notes` are the sentences about what it depends on. `runs` are details of runs, `erasures` rows of
// erasure requests, `dags` the Dags of the account that were read, `dagCount` the number of all, and `planned` is
// [{ dag, details, forecast, failed, health }] of those with a schedule; undefined while they are read, and then only
// what is under way is returned.
export function nextDeletes({ runs, erasures = [], dags, dagCount, planned }) {
  const now = [...runs.map(underWay).filter(Boolean), ...erasures.filter(({ isWaiting }) => isWaiting).map(waitingErasure)];
  if (!planned || !dags) return now;
  const waitingIds = new Set(now.flatMap(({ waitingIds: ids }) => ids ?? []));
  const coming = planned.map((one) => nextRun(one, waitingIds)).sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0));
  const notRead = dagCount - dags.length;
  if (notRead > 0) coming.push({ when: "", what: "Not known", notes: [`${plural(notRead, "more Dag")} of this account could not be read or are too many.`], tone: "todo" });
  return coming.length ? [...now, ...coming] : [...now, { when: now.length ? "After that" : "No date", what: "Nothing is scheduled", notes: [`${unscheduled(dags)}.`], tone: "todo" }];
}
