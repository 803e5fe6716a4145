// Airflow's colours and its theme. The page is in a frame of Airflow's UI, whose custom properties it copies,
// so it also follows a theme that a deployment sets. Outside that frame, style.css has Airflow's defaults.

const PROPERTY = /^--(chakra-colors-(bg|fg|border|success|failed|running|queued|skipped|awaiting_input|deferred|scheduled|up_for_retry|upstream_failed|brand|blue|red|orange|purple|green|gray|cyan|amber)|chakra-radii|chakra-fonts-body)/;

function outerDocument() {
  try {
    return window.parent === window ? null : window.parent.document;
  } catch {
    return null; // the page around this one has another origin
  }
}

function propertyNames(outer) {
  const names = new Set();
  const visit = (rules) => {
    for (const rule of rules) {
      for (const name of rule.style ?? []) if (PROPERTY.test(name)) names.add(name);
      if (rule.cssRules) visit(rule.cssRules);
    }
  };
  for (const sheet of outer.styleSheets) {
    try {
      visit(sheet.cssRules);
    } catch { /* a sheet of another origin */ }
  }
  return names;
}

export function followTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const outer = outerDocument();
  const root = document.documentElement;
  const apply = () => {
    const classes = outer?.documentElement.classList;
    const dark = classes?.contains("dark") ? true : classes?.contains("light") ? false : system.matches;
    root.dataset.theme = dark ? "dark" : "light";
    if (!outer) return;
    const values = outer.defaultView.getComputedStyle(outer.documentElement);
    for (const name of propertyNames(outer)) root.style.setProperty(name, values.getPropertyValue(name));
  };
  system.addEventListener("change", apply);
  if (outer) new MutationObserver(apply).observe(outer.documentElement, { attributeFilter: ["class"] });
  apply();
}
