// Elements of the page. Everything is put in as text, never as HTML.

const AIRFLOW = new URL("../", location.href);

export const byId = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "tone") node.style.setProperty("--mark", `var(--tone-${value})`);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

// columns: [[title, class]], rows: [[cell, ...]]; empty: the text instead of a table without rows.
export function table(columns, rows, { caption, empty }) {
  if (!rows.length) return make("p", { class: "empty" }, empty);
  return make("table", {}, make("caption", { hidden: true }, caption),
    make("thead", {}, make("tr", {}, columns.map(([title, kind]) => make("th", { scope: "col", class: kind }, title)))),
    make("tbody", {}, rows.map((cells) => make("tr", {}, cells.map((cell, at) => make("td", { class: columns[at][1] }, cell))))));
}

export const marked = (text, tone) => make("span", {}, make("span", { class: "mark", tone, "aria-hidden": "true" }), text);

// Airflow shows this page in a frame that may not open or leave pages. A link in the page around it may.
export function link(path, text) {
  const open = (event) => {
    if (window.parent === window) return;
    try {
      const outer = window.parent.document.createElement("a");
      outer.href = event.currentTarget.href;
      if (event.ctrlKey || event.metaKey || event.button === 1) outer.target = "_blank";
      outer.rel = "noopener";
      window.parent.document.body.append(outer);
      outer.click();
      outer.remove();
      event.preventDefault();
    } catch { /* the page around this one has another origin: the link works as a plain link */ }
  };
  return make("a", { href: new URL(path, AIRFLOW).href, onclick: open, onauxclick: open }, text);
}
