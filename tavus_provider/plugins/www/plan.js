// Values of a plan and of its verdicts: rows and counts. Nothing here touches the page.

import { escapeText, formatName, number, plural } from "./format.js";
import { isStatus, statusGroups, statusNames } from "./labels.js";

export const sum = (counts) => counts.reduce((total, count) => total + count, 0);

// A plan that is too large for an XCom is pushed without rows, with its counts and where it is stored.
export const isPlan = (value) => Array.isArray(value?.delete) || (typeof value?.digest === "string" && typeof value?.counts === "object");
export const storedAt = (plan) => (Array.isArray(plan.delete) ? null : plan.plan_at ?? "an unknown place");

const codeOf = (row) => row.reason_code ?? row.status;

// The rule or the check that decided, in words.
export const decider = ({ rule, code }) => (rule ? `rule ${escapeText(rule)}` : escapeText(code ?? "unknown").replaceAll("_", " "));

// Returns one row for each replica that is known by name: all of them, or without verdicts those in the plan.
export function replicaRows(plan, verdicts, report) {
  const inPlan = [...(plan.delete ?? []), ...(plan.scheduled ?? [])];
  const planned = new Map(inPlan.map((row) => [row.replica_id, row]));
  const reported = new Map((report?.items ?? []).map((item) => [item.replica_id, item]));
  const rows = verdicts?.rows?.length ? verdicts.rows : [
    ...(plan.delete ?? []).map((row) => ({ ...row, status: "expired", reason_code: "expired" })),
    ...(plan.scheduled ?? []).map((row) => ({ ...row, status: "scheduled", reason_code: "scheduled" })),
    ...(plan.undetermined ?? []).map((row) => ({ ...row, status: "undetermined", reason_code: "undetermined" })),
  ];
  const order = statusNames();
  return rows.map((verdict) => {
    const known = planned.get(verdict.replica_id) ?? {};
    const item = report?.dry_run ? null : reported.get(verdict.replica_id);
    const row = {
      key: verdict.replica_id,
      id: escapeText(verdict.replica_id ?? ""),
      name: formatName(verdict.replica_name ?? known.replica_name),
      status: verdict.status,
      order: order.includes(verdict.status) ? order.indexOf(verdict.status) : order.length,
      decider: decider(known.rule ? { rule: known.rule } : { code: codeOf(verdict) }),
      reason: escapeText(verdict.reason ?? ""),
      nextReason: escapeText(verdict.next_reason ?? ""),
      age: typeof verdict.age_days === "number" ? verdict.age_days : known.age_days ?? null,
      dueAt: known.due_at ?? null,
      createdAt: known.created_at ?? null,
      lastUsedAt: known.last_used_at ?? null,
      checks: Array.isArray(verdict.checks) ? verdict.checks : [],
      outcome: item?.outcome ?? null,
      outcomeDetail: escapeText(item?.detail ?? ""),
    };
    row.searched = `${row.id} ${row.name} ${row.reason} ${row.nextReason} ${row.decider}`.toLowerCase();
    return row;
  });
}

// Returns [{ status, decider, count }], the largest count first.
export function countByDecider(plan, verdicts) {
  const counts = new Map();
  const add = (status, text, count) => {
    const key = JSON.stringify([status, text]);
    if (!counts.has(key)) counts.set(key, { status, decider: text, count: 0 });
    counts.get(key).count += count;
  };
  if (verdicts?.rows?.length) {
    const rules = new Map([...(plan.delete ?? []), ...(plan.scheduled ?? [])].map((row) => [row.replica_id, row.rule]));
    for (const row of verdicts.rows) add(row.status, decider({ rule: rules.get(row.replica_id), code: codeOf(row) }), 1);
  } else {
    if (Array.isArray(plan.delete)) plan.delete.forEach((row) => add("expired", decider({ rule: row.rule, code: "expired" }), 1));
    else add("expired", decider({ code: "expired" }), plan.counts.delete ?? 0);
    for (const status of ["scheduled", "undetermined"]) add(status, decider({ code: status }), countOf(plan, status));
    // A plan counts what it keeps by reason code. Codes that are not a status of their own are of checks that keep.
    for (const [code, count] of Object.entries(plan.keep ?? {})) add(isStatus(code) ? code : "kept", decider({ code }), count);
  }
  return [...counts.values()].filter(({ count }) => count > 0).sort((a, b) => b.count - a.count);
}

const countOf = (plan, kind) => (Array.isArray(plan[kind]) ? plan[kind].length + (plan.left_out?.[kind] ?? 0) : plan.counts?.[kind] ?? 0);

export const plannedCount = (plan) => (plan ? countOf(plan, "delete") : 0);

// Returns the counts of the headline: [{ group, names, count }], in the order of the labels.
export function countByGroup(plan, verdicts) {
  const counts = countByDecider(plan, verdicts);
  return statusGroups().map(({ group, names }) => ({
    group, names, count: sum(counts.filter(({ status }) => names.includes(status)).map(({ count }) => count)),
  }));
}

// Returns [{ decider, count }] of the replicas that are kept, the most frequent first.
export function countKept(plan, verdicts) {
  const kept = statusGroups().find(({ group }) => group === "kept")?.names ?? [];
  const counts = new Map();
  for (const { status, decider: text, count } of countByDecider(plan, verdicts)) {
    if (kept.includes(status)) counts.set(text, (counts.get(text) ?? 0) + count);
  }
  return [...counts].map(([text, count]) => ({ decider: text, count })).sort((a, b) => b.count - a.count);
}

// The number of replicas of the account on which percentages are based: also soft-deleted ones that are no longer listed.
export const accountSize = (plan) => plan.listed
  + (plan.delete ?? []).filter((row) => row.source === "soft_deleted" && row.created_at === null).length;

// Returns which limit of a plan its deletes, or another number of them, exceed: in words, or null.
export function exceededLimit(plan, deletes = plannedCount(plan)) {
  const limits = plan.limits ?? {};
  const percent = limits.max_deletion_percent;
  const allowed = percent > 0 ? Math.max(1, Math.floor((percent * accountSize(plan)) / 100)) : 0;
  const exceeded = [
    typeof limits.max_deletions === "number" && deletes > limits.max_deletions ? number(limits.max_deletions) : null,
    typeof percent === "number" && deletes > allowed ? `${number(percent)} %` : null,
  ].filter(Boolean);
  return exceeded.length ? `${number(deletes)} of ${plural(accountSize(plan), "replica")} to delete, at most ${exceeded.join(" and at most ")} are allowed` : null;
}

// What a trigger form narrowed, in words, or null. `fields` are those that narrow, which the forecast of the plan names:
// a form also sends the age of the policy itself.
export function narrowing(plan, fields) {
  const narrow = Object.fromEntries(Object.entries(plan?.policy?.narrow ?? {}).filter(([field]) => fields?.includes(field) ?? true));
  const parts = [];
  if (narrow.include?.length && narrow.include.join() !== "*") parts.push(`only ${narrow.include.map(escapeText).join(", ")}`);
  if (narrow.exclude?.length) parts.push(`without ${narrow.exclude.map(escapeText).join(", ")}`);
  if (narrow.older_than) parts.push(`older than ${escapeText(narrow.older_than)}`);
  return parts.length ? parts.join("; ") : null;
}
