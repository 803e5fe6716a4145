// The choice in the address bar: in that of the page around this one, if it is Airflow's page for this frame.

function outerWindow() {
  try {
    return window.parent !== window && window.parent.location.origin === location.origin ? window.parent : null;
  } catch {
    return null;
  }
}

// Returns the task in the address, { dag_id, dag_run_id, task_id, map_index, connection }, or null.
export function requested() {
  const outer = outerWindow();
  const query = new URLSearchParams(location.search || (outer?.location.search ?? ""));
  const connection = query.get("connection");
  if (!query.get("dag_id") || !query.get("run_id")) return connection ? { connection } : null;
  return { connection, dag_id: query.get("dag_id"), dag_run_id: query.get("run_id"), task_id: query.get("task_id"), map_index: query.get("map_index") };
}

export function remember({ dag_id, dag_run_id, task_id, map_index }, connection) {
  const query = `?${new URLSearchParams({ connection, dag_id, run_id: dag_run_id, task_id, map_index })}`;
  history.replaceState(history.state, "", query);
  const outer = outerWindow();
  if (outer) outer.history.replaceState(outer.history.state, "", `${outer.location.pathname}${query}`);
}
