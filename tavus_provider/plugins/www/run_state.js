// What happened in a run, in words. The state comes from the Dag run, its tasks, its answers and its reports;
// it is never concluded from the absence of a known failure.

import { kindOf, runPath, taskPath } from "./airflow.js";
import { escapeText, formatName, number, plural, time, timeNear } from "./format.js";
import { describeCounts, outcomeLabel, totals } from "./labels.js";
import { countByGroup, exceededLimit, plannedCount } from "./plan.js";

const WAITING = ["awaiting_input", "deferred"];
const UNDER_WAY = ["running", "queued", "scheduled", "up_for_retry", "restarting", "up_for_reschedule", ...WAITING];
const NAMES_SHOWN = 3;
const ORDER = ["look", "plan", "approve", "split", "apply", "delete", "summary"];

export const isUnderWay = ({ run }) => ["running", "queued"].includes(run?.state);

const ofKind = (details, kind) => details.tasks.filter((task) => kindOf(task) === kind);
const approvalTasks = (details) => (ofKind(details, "approve").length ? ofKind(details, "approve") : details.tasks.filter(({ operator_name }) => operator_name === "ApprovalOperator"));
export const approvalTask = (details) => approvalTasks(details).find(({ state }) => state !== "skipped") ?? approvalTasks(details)[0];
export const deleteTasks = (details) => [...ofKind(details, "apply"), ...ofKind(details, "delete")];
export const isApproval = (answer) => Boolean(answer.response_received && answer.chosen_options?.includes("Approve"));
const NOT_WAITING = ["success", "failed", "skipped", "upstream_failed", "removed"];

// Whether what a run deletes still needs an answer: also before the approve task asks for it.
export function waitsForApproval(details) {
  const approve = approvalTask(details);
  return isUnderWay(details) && Boolean(approve) && !NOT_WAITING.includes(approve.state);
}

// Whether a run has deletes still to do: it was planned, and a task that deletes has not ended and can still run.
export function canStillDelete(details) {
  const isOver = ({ state }) => NOT_WAITING.includes(state);
  return isUnderWay(details) && (details.entry.kind === "delete" || details.task.state === "success") && deleteTasks(details).some((task) => !isOver(task));
}

// Whether a run failed by tasks of other accounts, while those of this one ended without a failure.
export const isFailureOfOthers = (details) => details.run?.state === "failed" && Boolean(details.isShared) && !failedTask(details)
  && details.tasks.filter(kindOf).every(({ state }) => ["success", "skipped"].includes(state));
const rejected = ({ approval }) => approval?.response_received && approval.chosen_options?.includes("Reject");
const approved = ({ approval }) => approval && isApproval(approval);
const person = ({ approval }) => escapeText(approval?.responded_by_user?.name || approval?.responded_by_user?.id || "a person");

// The failed task that explains the run: the earliest in the order of the steps; that of another operator last.
export function failedTask(details) {
  const failed = (details.failed?.tasks ?? details.tasks).filter(({ state }) => state === "failed");
  const rank = (task) => (ORDER.includes(kindOf(task)) ? ORDER.indexOf(kindOf(task)) : ORDER.length);
  return failed.sort((a, b) => rank(a) - rank(b))[0] ?? null;
}

// Why the unfinished replicas of a report are unfinished: the most frequent detail.
function mainReason(report) {
  const counts = new Map();
  for (const { outcome, detail } of report?.items ?? []) {
    if (!outcomeLabel(outcome).unfinished || !detail) continue;
    const text = detail.replace(/\/v2\/\w+\/[\w-]+/g, "…");
    counts.set(text, (counts.get(text) ?? 0) + 1);
  }
  const [text] = [...counts].sort((a, b) => b[1] - a[1])[0] ?? [];
  return text ? escapeText(text) : null;
}

// How many replicas may still exist, in words; if no delete was tried, they do.
function unfinishedWords({ counts }) {
  const { all, unfinished } = totals(counts);
  return `${number(unfinished)} of ${plural(all, "replica")} ${counts.not_attempted === unfinished ? "not attempted" : "may still exist"}`;
}

// The first few replicas that may still exist, by name.
function unfinishedNames({ plan, report }) {
  const names = new Map((plan?.delete ?? []).map((row) => [row.replica_id, row.replica_name]));
  const ids = (report.items ?? []).filter(({ outcome }) => outcomeLabel(outcome).unfinished).map(({ replica_id }) => replica_id);
  const shown = ids.slice(0, NAMES_SHOWN).map((id) => `${names.has(id) ? `${formatName(names.get(id))} ` : ""}${escapeText(id)}`);
  return `Not finished: ${shown.join(", ")}${ids.length > NAMES_SHOWN ? ` and ${number(ids.length - NAMES_SHOWN)} more` : ""}. ${plan ? "Another run deletes what is still expired then." : "Trigger the Dag again to try again."}`;
}

export const isKeyRefused = ({ error }) => error?.kind === "TavusAuthError";

function failure(details) {
  const task = failedTask(details);
  const { plan, report, error } = details;
  const because = error?.message ? escapeText(error.message) : null;
  const link = task ? { path: taskPath(task), text: `Open the log of ${escapeText(task.task_id)}` } : { path: runPath(details.run), text: "Open the run" };
  const result = (words, sentence) => ({ words, sentence: sentence ?? because ?? "The log of the task says why.", link });
  if (!task) return result("failed before all its tasks had run", "No task failed: the run was marked as failed, or it reached its time limit.");
  const kind = kindOf(task);
  if (kind === "plan" && plan && exceededLimit(plan)) return result("over the limit, nothing was deleted", because ?? `${exceededLimit(plan)}.`);
  if (isKeyRefused(details)) return result(`${escapeText(task.task_id)} failed: API key refused`);
  if (kind === "approve" && details.approval && !details.approval.response_received) {
    return result("not approved: nobody answered", because ?? `The approval ended at ${time(task.end_date)} without an answer. Nothing was deleted.`);
  }
  if (report && totals(report.counts).unfinished) {
    return result(unfinishedWords(report),
      `${mainReason(report) ?? because ?? "The report has the outcome of each replica"}. ${unfinishedNames(details)}`);
  }
  const others = (details.failed?.total ?? 0) > 1 ? ` (${number(details.failed.total)} failed tasks)` : "";
  if (kind === "apply" && !report) return result(`${escapeText(task.task_id)} failed without a report${others}`, because ?? "What it did is in the ledger: replicas of the plan may or may not be deleted.");
  return result(`${escapeText(task.task_id)} failed${others}`, because);
}

function progress(details) {
  const approve = approvalTask(details);
  if (approve && WAITING.includes(approve.state)) return `waits for approval${details.plan?.valid_until ? ` until ${timeNear(details.plan.valid_until, new Date())}` : ""}; without an answer nothing is deleted`;
  const running = details.tasks.filter(({ state }) => UNDER_WAY.includes(state));
  if (running.some(({ state }) => state === "up_for_retry")) return "waits to try a failed task again";
  if (running.some((task) => ["apply", "delete"].includes(kindOf(task)))) return "is deleting";
  if (running.some((task) => ["plan", "look"].includes(kindOf(task)))) return "is reading the account";
  return "is under way";
}

function success(details) {
  const { plan, report, task } = details;
  if (rejected(details)) return { words: `rejected by ${person(details)}, ${timeNear(details.approval.responded_at, details.run?.run_after)}`, tone: "neutral" };
  if (report) {
    const { all, unfinished } = totals(report.counts);
    if (unfinished) return { words: `${describeCounts(report.counts)}; a person marked the task as success`, tone: "error" };
    if (report.dry_run) return { words: all ? `dry run: ${plural(all, "replica")} would be deleted` : "dry run: nothing to delete", tone: "neutral" };
    return { words: all ? `${describeCounts(report.counts)}${report.notice ? `. ${report.notice}` : ""}` : "nothing to delete", tone: all ? "good" : "neutral" };
  }
  const deleting = deleteTasks(details);
  if (plan && !plannedCount(plan)) return { words: "nothing to delete", tone: "neutral" };
  if (!deleting.length && details.isPartly) return { words: "its other tasks are too many to be read", tone: "neutral" };
  if (!deleting.length) return { words: "made a plan; no task of this run deletes", tone: "neutral" };
  if (deleting.every(({ state }) => state === "skipped")) return { words: "the deletes were skipped", tone: "neutral" };
  if (deleting.some(({ state }) => state === "success")) return { words: `no report: the XComs of ${escapeText(deleting[0].task_id)} are missing, or a person marked it as success`, tone: "error" };
  return { words: `no outcome is known, ${escapeText(task?.task_id ?? "the task")} left no report`, tone: "error" };
}

// Returns { badge, words, tone, problem }: Airflow's state, what it means here, and if it is bad, why.
export function describe(details) {
  const { run } = details;
  if (!run) return { badge: null, words: "Airflow no longer has this run", tone: "neutral", problem: null };
  if (isFailureOfOthers(details)) return { badge: "failed", words: `${success(details).words}; another account of this run failed`, tone: "neutral", problem: null };
  if (run.state === "failed") {
    const { words, sentence, link } = failure(details);
    return { badge: "failed", words, tone: "error", problem: { title: words, sentence, link } };
  }
  if (run.state === "success") {
    const { words, tone } = success(details);
    const problem = tone === "error" ? { title: words, sentence: "The ledger has what was deleted.", link: { path: runPath(run), text: "Open the run" } } : null;
    return { badge: "success", words, tone, problem };
  }
  const approve = approvalTask(details);
  const waiting = approve && WAITING.includes(approve.state) ? approve.state : null;
  return { badge: waiting ?? run.state, words: run.state === "queued" ? "waits to start" : progress(details), tone: waiting ? "waiting" : "running", problem: null };
}

const list = (parts) => parts.filter(Boolean).join(", ");
const rest = (groups) => groups.slice(1).filter(({ group, count }) => count || ["undetermined", "kept"].includes(group)).map(({ group, count }) => `${number(count)} ${group}`);

// A task that had started is skipped too if its run reaches its time limit.
const hasTried = (details) => deleteTasks(details).some(({ state, try_number }) => ["failed", "success"].includes(state) || (state === "skipped" && details.run?.state === "failed" && try_number > 0));

// What the badge of a planned replica without an outcome says after its run; null while the run is under way.
export function leftBadge(details) {
  if (isUnderWay(details)) return null;
  return details.report?.dry_run || rejected(details) || !hasTried(details) ? "Not deleted" : "Planned";
}

// The headline: what the run deletes or deleted, and what it keeps.
export function headline(details) {
  const { plan, verdicts, report, run } = details;
  const groups = countByGroup(plan, verdicts);
  const planned = plannedCount(plan);
  const others = rest(groups);
  const { all, gone } = totals(report?.counts);
  const how = plan?.hard ? " permanently" : "";
  if (report && !report.dry_run && all) return list([`${number(gone)} of ${number(planned)} deleted${how}`, ...others]);
  const hasEnded = ["failed", "success"].includes(run?.state);
  if (!planned) return list([hasEnded ? "This run found nothing to delete" : "Nothing to delete", ...others]);
  if (report?.dry_run) return list([`Dry run: ${number(planned)} would be deleted${how}`, ...others]);
  if (rejected(details)) return list([`Rejected, nothing deleted, ${number(planned)} had been planned`, ...others]);
  if (run?.state === "failed" && !hasTried(details)) return list([`Nothing deleted, ${number(planned)} had been planned`, ...others]);
  if (hasEnded && hasTried(details)) return list([`No report, ${number(planned)} had been planned`, ...others]);
  return list([`${number(planned)} to delete${how}`, ...others]);
}

// -- the timeline

const stepState = (state) => {
  if (state === "success") return "done";
  if (["failed", "upstream_failed", "skipped"].includes(state)) return state;
  return UNDER_WAY.includes(state) ? (WAITING.includes(state) ? "waiting" : "running") : "todo";
};

function triggerStep({ run }) {
  const by = run.triggering_user_name ? `by ${escapeText(run.triggering_user_name)}` : { scheduled: "by the schedule", asset_triggered: "by an asset", backfill: "by a backfill" }[run.run_type] ?? "";
  return { title: "Triggered", state: "done", when: run.queued_at ?? run.run_after, text: by };
}

function planStep(details) {
  const task = ofKind(details, "plan")[0] ?? ofKind(details, "look")[0];
  if (!task) return null;
  const { plan } = details;
  const title = task.state === "success" ? "Planned" : "Plan";
  const text = plan ? `${number(plannedCount(plan))} of ${plural(plan.listed, "replica")} to delete${exceededLimit(plan) ? ", over the limit" : ""}` : task.state === "success" ? "no plan was pushed" : "";
  return { title, state: stepState(task.state), when: task.end_date ?? task.start_date, text: task.state === "failed" && !plan ? "failed" : text, path: taskPath(task) };
}

function approveStep(details) {
  const task = approvalTask(details);
  if (!task) return null;
  const step = { title: "Approval", state: stepState(task.state), when: details.approval?.responded_at ?? task.end_date, path: `${taskPath(task)}/required_actions`, text: "" };
  if (approved(details)) return { ...step, title: "Approved", text: `by ${person(details)}`, state: task.state === "failed" ? "failed" : "done" };
  if (rejected(details)) return { ...step, title: "Rejected", text: `by ${person(details)}`, state: "skipped" };
  if (WAITING.includes(task.state)) return { ...step, title: "Waits for approval", when: null, text: details.plan?.valid_until ? `until ${time(details.plan.valid_until)}` : "" };
  if (task.state === "failed") return { ...step, title: "Not approved", text: details.approval && !details.approval.response_received ? "nobody answered" : "failed" };
  if (task.state === "skipped") return { ...step, when: null, text: details.plan && !plannedCount(details.plan) ? "not needed, nothing to delete" : "skipped" };
  return { ...step, when: null, text: task.state !== "success" ? "" : details.answerHidden ? "your role may not read the answer" : "marked as success without an answer" };
}

function deleteSteps(details) {
  const summary = ofKind(details, "summary")[0];
  const tasks = deleteTasks(details);
  if (!tasks.length && !summary) return [];
  const chosen = summary ?? tasks.find(({ state }) => state !== "skipped") ?? tasks[0];
  const { report } = details;
  const isRunning = tasks.some(({ state }) => UNDER_WAY.includes(state));
  const state = isRunning ? "running" : tasks.some((task) => task.state === "failed") ? "failed" : stepState(chosen.state);
  const { all, gone, unfinished } = totals(report?.counts);
  const step = { title: "Delete", state, when: isRunning || ["skipped", "upstream_failed"].includes(chosen.state) ? null : chosen.end_date, path: taskPath(chosen), text: "" };
  if (!report) {
    const why = rejected(details) ? "skipped, rejected" : chosen.state === "upstream_failed" ? "not started" : chosen.state === "skipped" ? "skipped" : "";
    return [{ ...step, text: state === "done" ? "left no report" : why }, ...(isUnderWay(details) ? [{ title: "Verify", state: "todo", text: "" }] : [])];
  }
  if (report.dry_run) return [{ ...step, text: "dry run, nothing was sent" }];
  const verified = (report.items ?? []).filter(({ detail }) => /no longer listed/.test(detail ?? "")).length;
  return [
    { ...step, title: !gone ? "Delete" : unfinished ? "Partly deleted" : "Deleted", text: all ? describeCounts(report.counts) : "nothing to delete" },
    ...(gone ? [{
      title: unfinished ? "Not verified" : "Verified", state: unfinished ? "failed" : "done", when: chosen.end_date,
      text: unfinished ? `${plural(unfinished, "replica")} may still exist` : verified ? `${number(verified)} no longer listed` : "Tavus confirmed each delete",
    }] : []),
  ];
}

// Returns the steps of a run: [{ title, state, when, text, path }].
export function steps(details) {
  if (!details.run) return [];
  const split = ofKind(details, "split").find(({ state }) => state === "failed");
  return [
    triggerStep(details),
    planStep(details),
    approveStep(details),
    split ? { title: "Split", state: "failed", when: split.end_date, text: "failed", path: taskPath(split) } : null,
    ...deleteSteps(details),
  ].filter(Boolean);
}
