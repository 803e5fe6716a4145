// The runs that erase a person: one for each request, the newest. A request is open until a certificate says that
// it is not.

import { kindOf, readApprovals, readErasurePlans, readRun, readTasks, readXCom } from "./airflow.js";
import { escapeText, timeNear } from "./format.js";

const REQUESTS_READ = 20;
const WAITING = ["awaiting_input", "deferred"];
// Two accounts may have requests with the same reference.
const keyOf = ({ tavus_conn_id, request }) => JSON.stringify([tavus_conn_id ?? null, request]);
const DONE = ["complete", "partly_refused"];

// What the task that wrote the certificate says, and the first point that is open.
async function certified(certify, { state, open }) {
  const summary = await readXCom(certify, "summary");
  const words = typeof summary === "string" && summary ? summary.replace(/^Erasure \S+: /, "") : state.replaceAll("_", " ");
  const [first] = open ?? [];
  return escapeText(first && !DONE.includes(state) ? `${words}. Open: ${first.what}. ${first.next_step}` : words);
}

async function describeErasure(run, tasks) {
  const [plan, approve, apply, certify] = ["planErasure", "approve", "applyErasure", "certify"].map((kind) => tasks.find((task) => kindOf(task) === kind));
  if (!run) return { words: "Airflow no longer has this run", isOpen: true };
  const certificate = certify ? await readXCom(certify) : null;
  if (certificate?.state) {
    const isOpen = !DONE.includes(certificate.state);
    return { words: await certified(certify, certificate), tone: isOpen ? "error" : "good", isOpen };
  }
  if (approve && WAITING.includes(approve.state)) return { badge: approve.state, words: "waits for approval", isOpen: true, isWaiting: true };
  if (["running", "queued"].includes(run.state)) return { words: "is under way", isOpen: true, isRunning: true };
  if (run.state === "failed") {
    const failed = [plan, approve, apply, certify].find((task) => task?.state === "failed");
    const error = failed ? await readXCom(failed, "error") : null;
    return { words: error?.message ? escapeText(error.message) : failed ? `${escapeText(failed.task_id)} failed; its log says why` : "failed before all its tasks had run", tone: "error", isOpen: true };
  }
  const answer = approve ? (await readApprovals(run))?.find(({ response_received, task_instance }) => response_received && task_instance.task_id === approve.task_id) : null;
  if (answer?.chosen_options?.includes("Reject")) return { words: `rejected by ${escapeText(answer.responded_by_user?.name ?? "a person")}, ${timeNear(answer.responded_at, run.run_after)}. The request is open`, isOpen: true };
  return { words: "no certificate; the request is open", tone: "error", isOpen: true };
}

// Returns the newest run of each request of an account: [{ request, connection, due, run, badge, words, tone, isOpen, isWaiting }],
// and whether there are older runs that were not read.
export async function readErasures() {
  const { tasks, more } = await readErasurePlans();
  const requests = new Map();
  for (const task of tasks) {
    if (requests.size >= REQUESTS_READ) return { rows: [...requests.values()], more: true };
    const rendered = task.rendered_fields ?? {};
    // A run that is known to be an older one of a request is not read.
    if (rendered.request && requests.has(keyOf(rendered))) continue;
    const plan = await readXCom(task);
    const found = { request: plan?.request ?? rendered.request, tavus_conn_id: plan?.tavus_conn_id ?? rendered.tavus_conn_id ?? null };
    if (!found.request || requests.has(keyOf(found))) continue;
    const [run, read] = await Promise.all([readRun(task), readTasks(task)]);
    const state = await describeErasure(run, read.tasks);
    requests.set(keyOf(found), { request: found.request, connection: found.tavus_conn_id, due: plan?.due_on ?? null, run: run ?? task, badge: run?.state ?? null, ...state });
  }
  return { rows: [...requests.values()], more };
}
