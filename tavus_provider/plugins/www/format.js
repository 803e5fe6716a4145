// Values as text. Names and reasons come from outside: characters that could turn, hide or break a line are
// shown as escape sequences.

const DAY = 86_400_000;

export const escapeText = (text) => String(text).replace(
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]/gu,
  (character) => `\\u${character.codePointAt(0).toString(16).padStart(4, "0")}`,
);
export const formatName = (name) => (name === null || name === undefined ? "(no name)" : escapeText(name));
export const number = (value) => (typeof value === "number" ? value.toLocaleString("en") : "–");
export const plural = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
export const days = (value) => (typeof value === "number" ? `${number(value)} d` : "–");
export const time = (text) => {
  const at = new Date(text);
  return text && !Number.isNaN(at.getTime()) ? `${at.toISOString().slice(0, 16).replace("T", " ")} UTC` : "–";
};
export const until = (text) => {
  const left = Math.ceil((new Date(text) - Date.now()) / DAY);
  if (Number.isNaN(left)) return "";
  return left > 0 ? `in ${plural(left, "day")}` : "due now";
};
export const seconds = (value) => {
  if (typeof value !== "number") return "–";
  return value < 90 ? `${value.toFixed(value < 10 ? 1 : 0)} s` : `${number(Math.round(value / 60))} min`;
};
