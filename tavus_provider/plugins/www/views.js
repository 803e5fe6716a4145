// What the page shows of an account and of one run, beside the table of replicas.

import { runPath, taskPath } from "./airflow.js";
import { bars, columns } from "./charts.js";
import { byId, icon, link, make, replace, stateBadge, stateIcon } from "./dom.js";
import { escapeText, formatName, number, plural, seconds, time, timeNear, zone } from "./format.js";
import { statusLabel } from "./labels.js";
import { accountSize, countByDecider, exceededLimit, narrowing, plannedCount, storedAt, sum } from "./plan.js";
import { deletesIn30Days, nextDeletes, scheduledDags, weeksAhead } from "./next_deletes.js";
import { approvalTask, describe, headline, isApproval, isUnderWay, steps } from "./run_state.js";

const CHART_BARS = 9;
const NAMES_OF_A_DIFFERENCE = 5;
const AGES = [["0–6 d", 7], ["7–29 d", 30], ["30–89 d", 90], ["90–179 d", 180], ["180–364 d", 365], ["365 d +", Infinity], ["unknown", NaN]];
const hostOf = (origin) => {
  try {
    return new URL(origin).host;
  } catch {
    return null;
  }
};
export const hostName = (origin) => escapeText(hostOf(origin) ?? origin ?? "–");

const fact = (name, ...value) => make("div", {}, make("dt", {}, name), make("dd", {}, ...value));
const quiet = (text) => make("span", { class: "muted" }, text);

// -- the account

// The next scheduled run of the Dags of an account, in words.
function nextRunWords({ dags }) {
  const [next] = scheduledDags(dags);
  const at = next?.next_dagrun_run_after;
  if (next && !at) return `not dated yet, ${escapeText(next.dag_id)}`;
  if (next) return `${time(at)}${new Date(at) < Date.now() ? " overdue" : ""}, ${escapeText(next.dag_id)}`;
  return dags?.some(({ is_paused }) => is_paused) ? "paused" : dags?.length ? "when triggered" : "–";
}

// `latest` is the latest run, `shown` the one below; `dags` are those that make plans of this account.
// `isNewestPlan` says whether the run below is the newest with a plan; `show` opens a run.
export function showAccount({ account, erasures, latest, shown, isNewestPlan, show }) {
  const { plan, run } = latest ?? {};
  const { answers, note } = account.answers ?? {};
  const approval = answers?.find(isApproval);
  const rejection = answers?.[0] !== approval ? answers?.[0] : null;
  const finished = latest && isUnderWay(latest) ? account.finished : null;
  const origin = shown.plan?.origin ?? plan?.origin;
  replace(byId("account"), ...[
    fact("Account", make("strong", {}, escapeText(account.connection)), origin ? quiet(` ${hostName(origin)}`) : null),
    fact("Latest run", ...(run ? runFact(latest) : [quiet(latest ? "–" : "reading …")])),
    finished ? fact("Last finished prune or purge", ...runFact(finished), finished.run.dag_id === run.dag_id ? null : quiet(`, ${escapeText(finished.run.dag_id)}`)) : null,
    fact("Last purge approved", approval ? answerLink(approval) : quiet(answers ? note : "reading …")),
    rejection ? fact("Last purge rejected", answerLink(rejection)) : null,
    openErasures(erasures),
  ].filter(Boolean));
  byId("account").hidden = false;
  showNewerRun({ latest, shown, isNewestPlan, show });
}

// A run in a line: when, its badge, and once it has ended what it did.
function runFact(details) {
  const { badge, words } = describe(details);
  return [link(runPath(details.run), time(details.run.run_after)), " ", stateBadge(badge), isUnderWay(details) ? null : quiet(` ${words}`)];
}

const isOverdue = ({ due, isOpen }) => Boolean(isOpen && due) && new Date(`${due}T23:59:59Z`) < Date.now();

// How many erasure requests are open; null if none is.
function openErasures(erasures) {
  const open = (erasures ?? []).filter(({ isOpen }) => isOpen);
  if (!open.length) return null;
  const trouble = [["overdue", isOverdue], ["failed", ({ badge }) => badge === "failed"]].map(([word, test]) => [word, open.filter(test).length]).filter(([, count]) => count);
  return fact("Erasure requests", make("a", { href: "#erasures" }, `${number(open.length)} open`), trouble.length ? make("strong", {}, trouble.map(([word, count]) => `, ${number(count)} ${word}`)) : null);
}

const answerLink = (answer) => [
  link(`${taskPath(answer.task_instance)}/required_actions`, `by ${escapeText(answer.responded_by_user?.name ?? "a person")}`), quiet(` ${time(answer.responded_at)}`)];

// What is deleted next, and when. `runs` are the details of the runs that were read.
export function showNext({ account, runs, newest, erasures, unreadBefore }) {
  const { dags, planned, forecast } = account;
  const in30Days = deletesIn30Days(newest, forecast, dags);
  const lines = nextDeletes({ runs, erasures, dags, planned, dagCount: account.dagIds.length, unreadBefore });
  const isDry = lines.some((line) => line.isDry);
  byId("next-30-days").textContent = [
    planned?.length && in30Days > 0 ? `Forecast: ${plural(in30Days, "delete")} in 30 days, if the policy of the newest plan runs daily${isDry ? " and not as a dry run" : ""}.` : null,
    lines.some(({ isSoft }) => isSoft) ? "Tavus documents no undelete, not even of a soft delete." : null,
  ].filter(Boolean).join(" ");
  const item = ({ when, what, warning, notes = [], names, dag, path, tone, action }) => make("li", { "data-state": tone },
    make("span", { class: "when" }, when),
    make("div", {},
      make("p", {}, make("strong", {}, what), dag ? [" ", make("span", { class: "dag" }, quiet("· "), link(path, dag))] : null),
      warning ? make("p", { class: "warning" }, icon("warning"), warning) : null,
      notes.length || action ? make("p", {}, notes.join(" "), action ? [" ", link(action.path, action.text)] : null) : null,
      names ? make("p", { class: "muted" }, names) : null));
  replace(byId("next").querySelector("ol"), ...(lines.length || planned ? lines : [{ when: "", what: "reading …" }]).map(item));
  byId("next").hidden = false;
}

// What the latest run did, if the run below is an older one.
function showNewerRun({ latest, shown, isNewestPlan, show }) {
  const newer = byId("newer");
  newer.hidden = !latest?.run || latest.entry === shown.entry;
  if (newer.hidden) return;
  const { badge, words, tone } = describe(latest);
  newer.className = `alert ${tone === "error" ? "error" : "info"}`;
  replace(newer, icon(tone === "error" ? "warning" : "clock"), make("div", {},
    make("p", {}, make("strong", {}, `The latest run, of ${time(latest.run.run_after)}: `), stateBadge(badge), ` ${words}.`),
    make("p", {}, isNewestPlan ? "Below is the newest run with a plan. " : "Below is an older run. ", make("button", { type: "button", class: "linklike", onclick: () => show(latest.entry) }, "Show the latest run"))));
}

// The choice between accounts: cards, of which one is pressed.
export function showAccountChoice(accounts, chosen, choose) {
  byId("accounts").hidden = accounts.length < 2;
  replace(byId("accounts"), ...(accounts.length < 2 ? [] : accounts.map((account) => {
    const { forecast } = account;
    const details = account.latest ?? account.details;
    const state = details ? describe(details) : null;
    const lines = details ? nextDeletes({ runs: [details], dags: account.dags, planned: account.planned, dagCount: account.dagIds.length }) : [];
    const coming = lines.find((line) => line.amount) ?? lines[0];
    const in30Days = deletesIn30Days(account.details, forecast, account.dags);
    return make("li", {}, make("button", { type: "button", class: "card", "aria-pressed": String(account === chosen), onclick: () => choose(account) },
      make("span", {}, make("strong", {}, escapeText(account.connection)), account === chosen ? quiet(" · shown below") : null),
      make("span", { class: "muted" }, details?.plan?.origin ? hostName(details.plan.origin) : " "),
      make("span", {}, state ? [stateBadge(state.badge), quiet(` run of ${timeNear(details.run?.run_after, new Date())}`)] : quiet(time(account.entries[0].task.run_after))),
      coming ? make("span", {}, `${coming.when}: ${coming.amount ?? coming.what}`) : make("span", { class: "muted" }, account.dags ? `Next run: ${nextRunWords(account)}` : " "),
      make("span", { class: "muted" }, in30Days === null ? "no forecast" : `Forecast${lines.some((line) => line.isDry) ? " without dry run" : ""}: ${plural(in30Days, "delete")} in 30 days`)));
  })));
}

// -- the run

export function showRunChoice(entries, chosen, stateOf) {
  const name = (entry) => {
    const { task, kind } = entry;
    const mapped = task.map_index >= 0 ? ` [${escapeText(task.rendered_map_index ?? task.map_index)}]` : "";
    const state = stateOf(entry);
    return `${time(task.run_after)}${state ? `  ${state.replaceAll("_", " ")}` : ""}  ${escapeText(task.dag_id)}${mapped}${kind === "look" || kind === "delete" ? "  one replica" : ""}`;
  };
  byId("runs-choice").replaceChildren(...entries.map((entry, at) => make("option", { value: at }, name(entry))));
  byId("runs-choice").value = String(entries.indexOf(chosen));
}

export function showRun(details, { isLatest }) {
  const { run, plan, task } = details;
  const { badge, words, problem, tone } = describe(details);
  byId("run-name").className = isLatest ? "muted" : "older";
  byId("run-name").textContent = `${isLatest ? "Latest" : "Older"} run of ${time(task.run_after)}, ${escapeText(task.dag_id)}${plan ? `, ${plan.hard ? "permanent" : "soft"} deletes` : ""}`;
  byId("headline").className = isLatest ? "" : "older";
  byId("headline").textContent = plan ? headline(details) : words.charAt(0).toUpperCase() + words.slice(1);
  const waiting = tone === "waiting" ? approvalTask(details) : null;
  replace(byId("state"), ...[
    stateBadge(badge),
    !problem && (plan || !badge) ? make("span", {}, words) : null,
    waiting ? link(`${taskPath(waiting)}/required_actions`, "Open the approval") : null,
    run ? link(runPath(run), "Open the run") : null,
  ].filter(Boolean));
  replace(byId("alert"), ...(problem ? [make("div", { class: "alert error", role: "alert" }, icon("warning"), make("div", {},
    plan ? make("p", {}, make("strong", {}, problem.title.charAt(0).toUpperCase() + problem.title.slice(1))) : null, make("p", {}, problem.sentence.charAt(0).toUpperCase() + problem.sentence.slice(1)), make("p", {}, link(problem.link.path, problem.link.text))))] : []));
  replace(byId("timeline"), ...steps(details).map((step) => make("li", { "data-state": step.state },
    stateIcon(step.state),
    make("div", {}, step.path ? link(step.path, step.title, { class: "step-title" }) : make("span", { class: "step-title" }, step.title),
      make("span", { class: "step-text" }, step.text), step.when ? make("time", { datetime: step.when }, timeNear(step.when, run.run_after)) : null, make("span", { class: "hidden" }, ` (${step.state.replaceAll("_", " ")})`)))));
  showPlanFacts(details);
}

export function showPlanFacts({ plan, report, task, narrowedBy }) {
  byId("plan-facts").hidden = !plan;
  if (!plan) return;
  const limits = plan.limits ?? {};
  const deletes = plannedCount(plan);
  const total = accountSize(plan);
  const stored = storedAt(plan);
  const narrowed = narrowedBy === undefined ? null : narrowing(plan, narrowedBy); // undefined while it is read
  replace(byId("plan-facts"), ...[
    fact("Kind of delete", plan.hard ? make("strong", {}, "permanent, with the training footage") : "soft (no undelete is documented)"),
    fact("Policy", escapeText(plan.policy?.name ?? (stored ? "in the stored plan" : "without a name"))),
    fact("Limits", `${plural(deletes, "replica")} (at most ${number(limits.max_deletions)}), ${total ? ((100 * deletes) / total).toFixed(1) : 0} % (at most ${number(limits.max_deletion_percent)} %)`),
    narrowed ? fact("Narrowed by the form", narrowed) : null,
    fact("Plan", link(taskPath(task), `${escapeText(task.dag_id)} / ${escapeText(task.task_id)}`), quiet(", digest "), make("code", {}, escapeText(plan.digest ?? "–").slice(0, 12))),
    stored ? fact("Stored at", make("code", { class: "path" }, escapeText(stored))) : null,
    report?.notice ? fact("Report", report.notice) : null,
  ].filter(Boolean));
}

// -- what changed, and what comes

function changeList(title, tone, rows, count) {
  if (!count) return null;
  const names = (rows ?? []).slice(0, NAMES_OF_A_DIFFERENCE).map((row) => make("li", {}, make("span", { class: "name", dir: "auto" }, formatName(row.replica_name)), quiet(` ${escapeText(row.replica_id)} · ${escapeText(row.reason)}`)));
  const more = count - names.length;
  return make("div", { class: "change", "data-tone": tone }, make("h4", {}, make("strong", {}, number(count)), ` ${title}`),
    make("ul", {}, names, more > 0 ? make("li", { class: "muted" }, `and ${number(more)} more`) : null));
}

export function showDifference(difference) {
  byId("difference").hidden = !difference;
  if (!difference) return;
  const { counts } = difference;
  const content = byId("difference").querySelector(".content");
  byId("difference").className = counts ? "panel" : "line";
  if (!counts) {
    content.replaceChildren(make("p", {}, `${escapeText(difference.notice ?? "Not known")}.`));
    return;
  }
  const byUse = (difference.saved ?? []).filter(({ by_use }) => by_use);
  const otherwise = (difference.saved ?? []).filter(({ by_use }) => !by_use);
  const changes = [
    changeList("new to delete", "danger", difference.new, counts.new),
    changeList("saved by use", "good", byUse, counts.saved_by_use),
    changeList("kept for another reason", "info", otherwise, counts.saved - counts.saved_by_use),
    changeList("no longer listed", "muted", difference.gone, counts.gone),
  ].filter(Boolean);
  content.replaceChildren(...[
    make("p", { class: "muted" }, `Compared with the plan of ${time(difference.made_at)}: ${changes.length ? "" : "no difference, "}${plural(counts.unchanged, "delete")} in both${difference.same_policy ? "" : ". The policy or the form was another"}.`),
    changes.length ? make("div", { class: "changes" }, changes) : null,
  ].filter(Boolean));
}

export function showForecast(forecast, details, dags) {
  byId("forecast").hidden = !forecast;
  if (!forecast) return;
  const content = byId("forecast").querySelector(".content");
  if (!forecast.weeks) {
    content.replaceChildren(make("p", { class: "muted" }, `${escapeText(forecast.notice ?? "Not known")}.`));
    return;
  }
  const weeks = weeksAhead(details, forecast, dags).map(({ first, last, count }) => ({ name: first.slice(5), long: `${first} to ${last}`, count, tone: "danger" }));
  const all = sum(weeks.map(({ count }) => count));
  const today = forecast.begins_at?.slice(0, 10);
  const stops = (forecast.stops ?? []).map(({ first, last, reason }) => make("p", { class: "alert warning" }, icon("warning"), make("span", {}, `${first === last ? first : `${first} to ${last}`}: every run stops. ${(first === today ? exceededLimit(details.plan) : null) ?? escapeText(reason)}`)));
  content.replaceChildren(
    make("p", { class: "muted" }, `Deletes per week, by first day (UTC), if the policy ran once a day and nothing were created or used: ${number(all)} in ${number(forecast.days)} days${weeks[0].count === forecast.weeks[0].count ? ", with those of this plan" : ", without those of this run"}.`),
    all ? columns(weeks, { label: "Deletes per week" }) : "", ...stops);
}

export function showDeciders(plan, verdicts) {
  const counts = countByDecider(plan, verdicts);
  const rows = counts.slice(0, CHART_BARS).map(({ status, decider, count }) => {
    const { badge, tone } = statusLabel(status);
    return { name: decider, count, tone, note: badge.toLowerCase() === decider ? null : badge.toLowerCase() };
  });
  const others = sum(counts.slice(CHART_BARS).map(({ count }) => count));
  if (others) rows.push({ name: "others", count: others, tone: "muted" });
  byId("deciders").querySelector(".content").replaceChildren(bars(rows, { label: "Replicas by the rule or check that decides", empty: "The account had no replicas." }));
}

export function showAges(rows, plan) {
  const bucketOf = (age) => (typeof age === "number" ? AGES.findIndex(([, end]) => age < end) : AGES.length - 1);
  const counts = AGES.map(() => 0);
  rows.forEach(({ age }) => { counts[bucketOf(age)] += 1; });
  const known = rows.length;
  byId("ages").hidden = !known;
  byId("ages").querySelector(".content").replaceChildren(...[
    bars(AGES.map(([name], at) => ({ name, count: counts[at], tone: "info" })).filter(({ name, count }) => count || name !== "unknown"), { label: "Replicas by age", empty: "No ages are known." }),
    known < plan.listed ? make("p", { class: "muted" }, `This run pushed the rows of ${number(known)} of ${plural(plan.listed, "replica")}.`) : null,
  ].filter(Boolean));
}

// -- the runs of the account

export function showRuns(rows, { chosen, choose }) {
  const cell = ({ entry, details, state }) => {
    const { task } = entry;
    if (!details) return make("tr", {}, make("td", {}, time(task.run_after)), make("td", {}, stateBadge(state), state ? null : quiet("reading …")), make("td", {}, ""), make("td", {}, ""), make("td", {}, escapeText(task.dag_id)), make("td", { class: "number" }, ""));
    const { badge, words, tone } = describe(details);
    const approve = approvalTask(details);
    const answer = details.approval?.response_received
      ? `${details.approval.chosen_options?.includes("Approve") ? "approved" : "rejected"} by ${escapeText(details.approval.responded_by_user?.name ?? "a person")}`
      : approve && !["skipped", "upstream_failed", null].includes(approve.state) ? (tone === "waiting" ? "waiting" : "no answer") : "–";
    return make("tr", { "aria-current": entry === chosen ? "true" : undefined },
      make("td", {}, make("button", { type: "button", class: "linklike", onclick: () => choose(entry) }, time(task.run_after))),
      make("td", {}, badge ? stateBadge(badge) : quiet("removed")),
      make("td", { "data-state-tone": tone }, words),
      make("td", { "data-title": "Approval" }, approve && answer !== "–" ? link(`${taskPath(approve)}/required_actions`, answer) : quiet("–")),
      make("td", { "data-title": "Dag" }, details.run ? link(runPath(details.run), escapeText(task.dag_id)) : escapeText(task.dag_id)),
      make("td", { class: "number", "data-title": "Duration" }, seconds(details.run?.duration)));
  };
  replace(byId("runs"), make("table", {}, make("caption", { class: "hidden" }, "Runs of this account"),
    make("thead", {}, make("tr", {}, ["Run", "State", "What happened", "Approval", "Dag"].map((title) => make("th", { scope: "col" }, title)), make("th", { scope: "col", class: "number" }, "Duration"))),
    make("tbody", {}, rows.map(cell))));
}

// -- erasures

// The newest run of each request: those of the account, and those of a connection that has no plan.
export function showErasures(erasures, account, accounts) {
  const isElsewhere = (connection) => connection !== account?.connection && accounts.some((one) => one.connection === connection);
  const rows = (erasures?.rows ?? []).filter(({ connection }) => !isElsewhere(connection));
  byId("erasures").querySelector("p").textContent = `The latest run of each request${erasures?.more ? ", of the newest runs only" : ", as far as Airflow still has it"}. The ledger and its certificates have all.`;
  byId("erasures").hidden = !rows.length;
  const row = ({ request, connection, run, badge, words, tone, due, isOpen }) => make("tr", {},
    make("td", {}, make("strong", {}, escapeText(request)), connection && connection !== account?.connection ? quiet(` ${escapeText(connection)}`) : null),
    make("td", {}, link(runPath(run), time(run.run_after))),
    make("td", {}, badge ? stateBadge(badge) : quiet("removed")),
    make("td", { "data-state-tone": tone }, words),
    make("td", { "data-title": "Due" }, due ? escapeText(due) : quiet("–"), isOverdue({ due, isOpen }) ? make("strong", {}, " overdue") : null));
  replace(byId("erasures").querySelector(".scroll"), make("table", {}, make("caption", { class: "hidden" }, "Erasure requests"),
    make("thead", {}, make("tr", {}, ["Request", "Run", "State", "What happened", "Due"].map((title) => make("th", { scope: "col" }, title)))),
    make("tbody", {}, rows.map(row))));
}

export const showReadAt = () => { byId("read-at").textContent = `Read at ${time(new Date().toISOString()).slice(11)}, times in ${zone}`; };
