// Values as text. Names and reasons come from outside: characters that could turn, hide or break a line are
// shown as escape sequences.

const DAY = 86_400_000;

export const escapeText = (text) => String(text).replace(
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]/gu,
  (character) => `\\u${character.codePointAt(0).toString(16).padStart(4, "0")}`,
);
export const formatName = (name) => (name === null || name === undefined || name === "" ? "(no name)" : escapeText(name));
export const number = (value) => (typeof value === "number" ? value.toLocaleString("en") : "–");
export const plural = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
export const days = (value) => (typeof value === "number" ? `${number(value)} d` : "–");

// The time zone that was chosen in Airflow, which its UI keeps in the storage of the browser.
function chosenZone() {
  try {
    const zone = localStorage.getItem("timezone")?.replaceAll('"', "");
    if (zone && zone !== "local") new Intl.DateTimeFormat("en", { timeZone: zone });
    return zone === "local" ? Intl.DateTimeFormat().resolvedOptions().timeZone : zone || "UTC";
  } catch {
    return "UTC";
  }
}

export const zone = chosenZone();
const parts = new Intl.DateTimeFormat("en-CA", { timeZone: zone, year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const asDate = (text) => {
  const at = new Date(text);
  return text && !Number.isNaN(at.getTime()) ? at : null;
};
const split = (at) => Object.fromEntries(parts.formatToParts(at).map(({ type, value }) => [type, value]));

export const time = (text) => {
  const at = asDate(text);
  if (!at) return "–";
  const { year, month, day, hour, minute } = split(at);
  return `${year}-${month}-${day} ${hour}:${minute}`;
};
export const clock = (text) => time(text).slice(11);
// The time of day; with its date if that is another day than a reference.
export const timeNear = (text, reference) => (time(text).slice(0, 10) === time(reference).slice(0, 10) ? clock(text) : time(text));
export const until = (text) => {
  const at = asDate(text);
  if (!at) return "";
  const left = Math.ceil((at - Date.now()) / DAY);
  return left > 0 ? `in ${plural(left, "day")}` : "due now";
};
export const seconds = (value) => {
  if (typeof value !== "number") return "–";
  return value < 90 ? `${value.toFixed(value < 10 ? 1 : 0)} s` : `${number(Math.round(value / 60))} min`;
};
