// What is deleted next: by runs that are under way or wait for an approval, then by the next run of each Dag with a
// schedule. A number of a run that has no plan yet comes from the forecast of the newest plan of its Dag. Nothing here
// touches the page.

import { dagPath, runPath, taskPath } from "./airflow.js";
import { escapeText, formatName, number, plural, time, timeNear } from "./format.js";
import { outcomeLabel, totals } from "./labels.js";
import { exceededLimit, narrowing, plannedCount } from "./plan.js";
import { approvalTask, canStillDelete, deleteTasks, describe, isApproval, isUnderWay, waitsForApproval } from "./run_state.js";

const NAMES_SHOWN = 3;
const NAME_LENGTH = 40;
const DAGS_SHOWN = 3;
const HOUR = 3_600_000;
const DAY = 24 * HOUR;

const kindOfDelete = (hard) => (hard ? "permanently" : "soft delete");
const amount = (count, hard) => `${plural(count, "replica")}, ${kindOfDelete(hard)}`;
const sentences = (...parts) => parts.filter(Boolean);
const dateOf = (moment) => time(moment).slice(0, 10);

// Airflow 3.1 names no next run while as many runs as allowed are under way, and a Dag that waits for an asset has none.
const hasSchedule = ({ next_dagrun_run_after, timetable_summary }) => Boolean(next_dagrun_run_after) || !["None", "@once", null, undefined].includes(timetable_summary);

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

// -- dry runs

const flag = (value) => (typeof value === "boolean" ? value : { true: true, false: false }[String(value).toLowerCase()] ?? null);
const defaultOf = (dag) => flag(dag?.params?.dry_run?.value);

// Whether a run is a dry run: by its report, the fields of its tasks, or its form; null if none of them says it.
function dryRunOf({ run, report, tasks }) {
  const given = [...deleteTasks({ tasks }), ...tasks].map(({ rendered_fields: fields }) => flag(fields?.dry_run)).find((value) => value !== null);
  return report?.dry_run ?? given ?? flag(run?.conf?.dry_run);
}
const isDryRun = (details, dag) => (dryRunOf(details) ?? defaultOf(dag)) === true;

const isOff = (day) => `Deletes for real: its dry run is off, unlike in the run of ${day}.`;

// Whether the next run of a Dag is a dry run: { isDry, note }, with null if nobody can say it. The schedule starts it with
// the values of the params, which the tasks may ignore: the latest scheduled run shows whether they do.
function nextDryRun(dag, details, scheduled) {
  const declared = defaultOf(dag);
  const seen = scheduled ? dryRunOf(scheduled) : null;
  const day = scheduled ? dateOf(scheduled.run?.run_after) : null;
  if (declared === null) {
    const wasDry = seen ?? dryRunOf(details);
    return { isDry: wasDry ? null : false, note: wasDry ? `Nothing if it is a dry run, as the run of ${day ?? dateOf(details.run?.run_after)} was.` : null };
  }
  if (seen !== null && seen !== declared) {
    return { isDry: declared ? null : false, note: declared ? `Nothing if it is a dry run, which is the default of the Dag; but the scheduled run of ${day} deleted.` : `Deletes, unless it is a dry run again, as that of ${day}; by its default it deletes.` };
  }
  return { isDry: declared, note: !declared && dryRunOf(details) ? isOff(dateOf(details.run?.run_after)) : null };
}

// -- runs under way

const isRejected = ({ approval }) => Boolean(approval?.response_received) && !isApproval(approval);
const dagOf = (dags, { task }) => dags?.find(({ dag_id }) => dag_id === task.dag_id);

// A run that deletes now, or that waits for an approval; null for any other.
function underWay(details, dags) {
  const { plan, run, task, entry } = details;
  if (!canStillDelete(details)) return null;
  if (entry.kind === "delete") return { when: "Now", tone: "running", what: "Deletes by id", notes: [`The run ${describe(details).words}.`], names: "", dag: escapeText(task.dag_id), path: runPath(run) };
  const count = plannedCount(plan);
  const isDry = dryRunOf(details);
  if (!count || isDry || isRejected(details)) return null;
  const { words } = describe(details);
  const dryNote = isDry === null && defaultOf(dagOf(dags, details)) ? "Nothing if it is a dry run, as is the default of the Dag." : null;
  const base = { dag: escapeText(task.dag_id), path: runPath(run), isSoft: !plan.hard, amount: amount(count, plan.hard), what: amount(count, plan.hard), names: names(plan.delete, count) };
  if (!waitsForApproval(details)) return { ...base, when: "Now", tone: "running", notes: sentences(`The run ${words}.`, dryNote) };
  const end = plan.valid_until ? ` until ${timeNear(plan.valid_until, new Date())}` : "";
  return {
    ...base, when: "Once approved", tone: "waiting", notes: sentences(`A person can approve it${end}. Without an answer nothing is deleted.`, dryNote),
    action: { path: `${taskPath(approvalTask(details))}/required_actions`, text: "Open the approval" }, waitingIds: (plan.delete ?? []).map(({ replica_id }) => replica_id),
  };
}

const erasure = ({ request, run, isWaiting }) => ({
  when: isWaiting ? "Once approved" : "Now", tone: isWaiting ? "waiting" : "running", what: `Erasure request ${escapeText(request)}, permanently`, notes: [isWaiting ? "A person can approve it." : "The run is under way."], dag: escapeText(run.dag_id), path: runPath(run), action: { path: runPath(run), text: "Open the run" },
});

// -- the forecast of a plan, without what its run has deleted

// What a plan was to delete is gone if its run has deleted, but for what is unfinished, or if it deletes now.
const hasDeleted = (details, dag) => !isDryRun(details, dag) && (Boolean(details.report) || (canStillDelete(details) && !waitsForApproval(details)));
const firstDate = ({ begins_at }) => begins_at.slice(0, 10);

// The dates of a forecast on which the deletes are still to come, without what later runs have deleted. The forecast names
// only some replicas of a date, the plan all of its own.
function datesAhead(details, forecast, dag, gone) {
  const rest = ({ date, count, replicas }) => {
    const named = date === firstDate(forecast) && details.plan.delete?.length === count ? details.plan.delete : replicas;
    const left = named.filter(({ replica_id }) => !gone.has(replica_id));
    return { date, count: count - (named.length - left.length), replicas: left };
  };
  return forecast.dates.filter(({ date }) => !hasDeleted(details, dag) || date > firstDate(forecast)).map(rest).filter(({ count }) => count);
}

// What the run of a plan has not deleted, in the form of a date of a forecast: also what its reports do not mention.
function unfinished({ plan, report }, gone = new Set()) {
  const rows = new Map((plan.delete ?? []).map((row) => [row.replica_id, row]));
  const items = report?.items ?? [];
  const isComplete = items.length === totals(report?.counts).all;
  const mentioned = new Set(items.map(({ replica_id }) => replica_id));
  const missing = report ? Math.max(0, plannedCount(plan) - totals(report.counts).all) : 0;
  const left = items.filter(({ outcome }) => outcomeLabel(outcome).unfinished).map(({ replica_id }) => rows.get(replica_id) ?? { replica_id });
  if (missing && isComplete) left.push(...[...rows.values()].filter(({ replica_id }) => !mentioned.has(replica_id)));
  const replicas = left.filter(({ replica_id }) => !gone.has(replica_id));
  return { count: totals(report?.counts).unfinished + missing - (left.length - replicas.length), replicas };
}

// How many deletes of the first date of a forecast its run has made.
function deletesDone(details, forecast, dags) {
  if (!hasDeleted(details, dagOf(dags, details))) return 0;
  return (forecast.dates[0]?.date === firstDate(forecast) ? forecast.dates[0].count : 0) - unfinished(details).count;
}

// How many replicas will be deleted in 30 days by the forecast of a plan, without those that its run has deleted; null
// if that is not known.
export function deletesIn30Days(details, forecast, dags) {
  if (!details?.plan || !forecast?.dates || !isOfItsDag(details, forecast)) return null;
  return forecast.next_30_days - deletesDone(details, forecast, dags);
}

// The weeks of a forecast, without the deletes that the run of its plan has made.
export function weeksAhead(details, forecast, dags) {
  if (!details?.plan || !forecast.dates) return forecast.weeks;
  return forecast.weeks.map((week, at) => (at ? week : { ...week, count: week.count - deletesDone(details, forecast, dags) }));
}

// -- the next run of a Dag

// The last date of a forecast whose deletes the next run makes for certain, and the last whose deletes it may make: a
// date stands for a run at the time of day of the plan, give or take an hour.
function lastDates(forecast, at) {
  const begin = Date.parse(forecast.begins_at);
  const ahead = Math.max(Date.parse(at ?? forecast.begins_at), Date.now()) - begin;
  const dateAfter = (days) => new Date(begin + Math.max(0, days) * DAY).toISOString().slice(0, 10);
  return [dateAfter(Math.floor((ahead + HOUR) / DAY)), dateAfter(Math.ceil((ahead - HOUR) / DAY))];
}

// The first day on which a run can make the deletes of a date, which expire in the 24 hours before it: that of the first
// run after their begin, if the Dag runs once a day.
function earliestDay(forecast, date, at) {
  const days = (Date.parse(date) - Date.parse(firstDate(forecast))) / DAY;
  const begin = Date.parse(forecast.begins_at) + (days - 1) * DAY;
  const next = Date.parse(at ?? NaN);
  if (Number.isNaN(next)) return dateOf(new Date(Math.max(begin, Date.now())).toISOString());
  return dateOf(new Date(next + Math.max(0, Math.floor((begin - next) / DAY) + 1) * DAY).toISOString());
}

// What the next run of a Dag is expected to do: { outcome, reason } or { outcome: "deletes", most, least, rows, later }.
// `later` is the day from which on it can happen, if the next run has nothing to delete.
function expectation({ dag, details, forecast, reading, deletesById, gone }) {
  if (dag.is_stale || dag.has_import_errors) return { outcome: "no run", reason: "its file is gone or has an import error" };
  if (deletesById) return { outcome: "unknown", reason: "It deletes replicas by their id, without a plan." };
  if (!details) return { outcome: "unknown", reason: reading ? "Its run under way has no plan yet." : "Its newest runs made no plan of the whole policy. A dry run that no form narrows would show it." };
  if (!deleteTasks(details).length && !details.isPartly) return { outcome: "plans only" };
  if (!forecast?.dates) return { outcome: "no number", reason: `${escapeText(forecast?.notice ?? "The newest plan has no forecast")}.` };
  const at = dag.next_dagrun_run_after;
  const [certain, possible] = lastDates(forecast, at);
  if (Date.parse(certain) - Date.parse(firstDate(forecast)) > forecast.days * DAY) return { outcome: "no number", reason: `The newest plan is of ${dateOf(forecast.begins_at)}, too old for a forecast.` };
  // The account is smaller by what was deleted since.
  const plan = { ...details.plan, listed: details.plan.listed - gone.size };
  const stop = forecast.stops?.find(({ first, last }) => first <= certain && certain <= last);
  // A run that stops has no dates. What is left of its plan may be within the limits.
  const stopped = stop && gone.size && details.plan.delete ? [{ date: firstDate(forecast), count: details.plan.delete.length, replicas: details.plan.delete }] : null;
  if (stop && !stopped) return { outcome: "limit", reason: exceededLimit(plan) ?? escapeText(stop.reason) };
  const dates = datesAhead(details, stopped ? { ...forecast, dates: stopped } : forecast, dag, gone);
  const until = (last) => [...(hasDeleted(details, dag) ? [unfinished(details, gone)] : []), ...dates.filter(({ date }) => date <= last)];
  const count = (some) => some.reduce((total, one) => total + one.count, 0);
  const [most, least] = [count(until(possible)), count(until(certain))];
  const excess = exceededLimit(plan, least);
  if (excess) return { outcome: "limit", reason: excess };
  if (most) return { outcome: "deletes", most, least, rows: until(possible).flatMap(({ replicas }) => replicas), excess: exceededLimit(plan, most) };
  if (stopped) return { outcome: "no number", reason: "What its plan had was deleted since." };
  const [first] = dates;
  if (first) return { outcome: "deletes", most: first.count, least: first.count, rows: first.replicas, later: earliestDay(forecast, first.date, at) };
  const [nextStop] = forecast.stops ?? [];
  return { outcome: "nothing", reason: nextStop ? `From ${nextStop.first} on a limit stops each run: ${escapeText(nextStop.reason)}` : `Nothing expires in the ${number(forecast.days)} days from ${dateOf(forecast.begins_at)} on.` };
}

// When a run that is due will start: { text, isWarning }.
function lateness({ next_dagrun_run_after: at, active_runs_count: active, max_active_runs: most }, health) {
  const since = `was due ${time(at)}`;
  if (active >= most) return { text: `Starts when the run of this Dag that is under way has ended; ${since}.` };
  if (health?.scheduler?.status === "unhealthy") return { text: `Airflow's scheduler is down: the run starts when it is back; ${since}.`, isWarning: true };
  return { text: `Can start at any moment; ${since}.` };
}

const REFUSED = "Each run fails and deletes nothing until the key is corrected.";
const failureNote = ({ words, isBlocked }) => (isBlocked ? REFUSED : `May fail again: the latest run failed (${words}).`);

// What is said about replicas that also wait for an approval; empty without any.
function overlap(rows, count, waitingIds) {
  const both = rows.filter(({ replica_id }) => waitingIds.has(replica_id)).length;
  if (!both) return "";
  const isAll = rows.length === count;
  const who = both === count ? (count === 1 ? "It is" : `All ${number(count)} are`) : isAll ? `${number(both)} of them ${both === 1 ? "is" : "are"}` : "Some of them are";
  return `. ${who} also listed above`;
}

// Which of the replicas may expire only after the run; null without any.
function lateExpiry({ most, least }) {
  const late = most - least;
  if (!late) return null;
  if (late === most) return `${late === 1 ? "It expires" : "They expire"} about then: this run deletes ${late === 1 ? "it" : "them"}, or the run after.`;
  return `${number(late)} of them ${late === 1 ? "expires" : "expire"} about then: this run deletes ${late === 1 ? "it" : "them"}, or the run after.`;
}

// The line about the next run of a Dag. `details` and `forecast` are those of its newest plan, null if it has none;
// `scheduled` is its latest scheduled run; `failed` says what went wrong if the latest run has failed.
function nextRun(one, waitingIds) {
  const { dag, details, failed, health, scheduled, part, reading } = one;
  const at = dag.next_dagrun_run_after;
  const isDue = at && new Date(at) < Date.now();
  const expected = expectation(one);
  const { outcome, reason, later } = expected;
  const late = isDue && outcome !== "no run" ? lateness(dag, health) : null;
  const dry = details ? nextDryRun(dag, details, scheduled) : { isDry: null, note: null };
  const { plan } = details ?? {};
  const base = {
    at: later ?? (at && !isDue ? at : ""), when: later ? `${later} or later` : isDue ? "Overdue" : at ? `${time(at)}${outcome === "deletes" && !expected.least ? " or the run after" : ""}` : "No date yet", tone: isDue && !later ? "overdue" : "todo",
    dag: escapeText(dag.dag_id) + (part ? ` / ${escapeText(part)}` : ""), path: dagPath(dag), names: "", isSoft: ["deletes", "no number"].includes(outcome) ? !plan.hard : undefined,
  };
  const warning = (...parts) => sentences(...parts).join(" ") || null;
  const start = late?.isWarning ? null : late?.text ?? (at ? null : `Starts by its schedule, ${escapeText(dag.timetable_summary)}.`);
  const troubles = [late?.isWarning ? late.text : null, failed ? failureNote(failed) : null];
  const approval = !details ? null : approvalTask(details) ? "Only if a person approves it." : plan.hard || details.isPartly ? null : "Needs no approval.";
  const before = reading && details ? "The run under way may delete some of them first." : null;
  if (outcome === "no run") return { ...base, what: "Nothing: the Dag does not run", warning: `${reason[0].toUpperCase()}${reason.slice(1)}.`, notes: [] };
  if (outcome === "plans only") return { ...base, what: "Nothing: it only plans", warning: warning(...troubles), notes: sentences(start, "No task of the Dag deletes.") };
  if (outcome === "nothing") return { ...base, what: "Nothing", warning: warning(...troubles), notes: sentences(start, reason) };
  if (failed?.isBlocked && outcome !== "limit") {
    const then = dry.isDry ? "a dry run" : outcome === "deletes" ? `${amount(expected.most, plan.hard)}${later ? `, ${later} or later` : ""}` : null;
    return {
      ...base, at: at && !isDue ? at : "", when: at && !isDue ? time(at) : base.when, tone: "failed", isSoft: undefined, what: "Nothing: Tavus refuses the API key", warning: warning(late?.isWarning ? late.text : null, REFUSED),
      notes: sentences(start, then ? `Once it is corrected: ${then}.` : null, then && !dry.isDry ? approval : null, then ? dry.note : null),
      names: outcome === "deletes" ? `${names(expected.rows, expected.most)}, unless used in the meantime` : "",
    };
  }
  if (outcome === "unknown") return { ...base, what: "Not known", warning: warning(...troubles), notes: sentences(start, reason) };
  const said = outcome === "deletes" ? amount(expected.most, plan.hard) : null;
  const named = outcome === "deletes" ? `${names(expected.rows, expected.most)}, unless used in the meantime${overlap(expected.rows, expected.most, waitingIds)}` : "";
  if (dry.isDry) {
    const without = outcome === "limit" ? `a limit would stop it: ${reason}` : outcome === "deletes" ? `it would delete ${said}${later ? `, from ${later} on` : ""}` : `it would delete, how many is not known. ${reason.replace(/\.$/, "")}`;
    return { ...base, at: at && !isDue ? at : "", when: isDue ? "Overdue" : at ? time(at) : "No date yet", isDry: true, isSoft: undefined, what: "Nothing: a dry run", warning: late?.isWarning ? late.text : null, notes: sentences(start, `Without dry run ${without}.`), names: named };
  }
  if (outcome === "limit") return { ...base, tone: "failed", what: "Nothing: a limit stops it", warning: warning(`${reason}.`, failed?.isBlocked ? failureNote(failed) : null), notes: sentences(start, "A person must look, then raise the limits or narrow the policy.") };
  if (outcome === "no number") return { ...base, what: `Number not known, ${kindOfDelete(plan.hard)}`, warning: warning(...troubles), notes: sentences(start, approval, dry.note, reason) };
  const notYet = later && at ? `The run of ${time(at)} finds nothing expired yet.` : null;
  const stop = expected.excess ? `A limit may stop it: ${expected.excess}.` : null;
  return { ...base, amount: said, what: said, names: named, warning: warning(...troubles), notes: sentences(later ? null : start, before, notYet, lateExpiry(expected), approval, dry.note, stop) };
}

// Why nothing runs by itself.
function unscheduled(dags) {
  const list = (some) => some.map(({ dag_id }) => escapeText(dag_id)).join(", ");
  const paused = dags.filter((dag) => dag.is_paused && hasSchedule(dag));
  if (paused.length) return `${list(paused)} ${paused.length === 1 ? "is" : "are"} paused.`;
  return `A run starts only when a person or another Dag triggers it${dags.length ? `: ${list(dags.slice(0, DAGS_SHOWN))}` : ""}.`;
}

// A run that still reads the account, and what it will delete by the newest plan.
function readsNow({ dag, reading, details }) {
  if (!reading || isDryRun(reading, dag)) return null;
  const approval = details && (approvalTask(details) ? "Then a person must approve." : details.plan.hard ? null : "Then it deletes without an approval.");
  return { when: "Now", tone: "running", what: "Not planned yet", notes: sentences(`The run ${describe(reading).words}.`, approval), names: "", dag: escapeText(dag.dag_id), path: runPath(reading.run) };
}

// Returns [{ when, what, amount, isSoft, isDry, warning, notes, names, dag, path, tone, action }], the next one first: `what`
// is the outcome, `notes` are the sentences about what it depends on. `runs` are details of runs, `erasures` rows of
// erasure requests, `dags` the Dags of the account that were read, `dagCount` the number of all; Dags without a run since
// `unreadBefore` may be missing. `planned` is [{ dag, part, details, forecast, scheduled, failed, reading, gone, health }] of
// those with a schedule; undefined while they are read, and then only what is under way is returned.
export function nextDeletes({ runs, erasures = [], dags, dagCount, planned, unreadBefore = null }) {
  const now = [...runs.map((details) => underWay(details, dags)).filter(Boolean), ...(planned ?? []).map(readsNow).filter(Boolean), ...erasures.filter(({ isWaiting, isRunning }) => isWaiting || isRunning).map(erasure)];
  if (!planned || !dags) return now;
  const waitingIds = new Set(now.flatMap(({ waitingIds: ids }) => ids ?? []));
  const coming = planned.map((one) => nextRun(one, waitingIds)).sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0));
  const notRead = dagCount - dags.length;
  if (notRead > 0) coming.push({ when: "", what: "Not known", notes: [`${plural(notRead, "more Dag")} of this account could not be read or are too many.`], tone: "todo" });
  if (!coming.length) coming.push({ when: now.length ? "After that" : "No date", what: "Nothing is scheduled", notes: [unscheduled(dags)], tone: "todo" });
  if (unreadBefore) coming.push({ when: "", what: "Not known", notes: [`Dags without a run since ${dateOf(unreadBefore)} are not listed.`], tone: "todo" });
  return [...now, ...coming];
}
