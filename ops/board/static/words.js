// How numbers, times and texts are written. Text from the history is a stranger's: it only ever becomes text.

const whole = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export const byId = (id) => document.getElementById(id);

export function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

export function draw(name, attributes = {}, text = null) {
  const drawn = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) drawn.setAttribute(key, value);
  if (text !== null) drawn.textContent = text;
  return drawn;
}

/** Write a text where it differs: what is written anew is laid out anew, and read out anew. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function mark(node, name, value) {
  if (value === null || value === undefined || value === "") {
    if (name in node.dataset) delete node.dataset[name];
  } else if (node.dataset[name] !== value) {
    node.dataset[name] = value;
  }
}

export const count = (number) => whole.format(number);

export const several = (number, one, more = `${one}s`) => `${count(number)} ${number === 1 ? one : more}`;

/** A rate: small ones with a decimal, since 0.3 a second is something else than none. */
export function rate(perSecond) {
  if (perSecond > 0 && perSecond < 9.95) return perSecond.toFixed(1);
  return count(Math.round(perSecond));
}

/** A duration given in milliseconds, with as much of it as is of use. */
export function lasting(ms) {
  if (ms < 0) return lasting(0);
  if (ms < 1000) return `${ms < 10 && ms % 1 ? ms.toFixed(1) : Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

export const ago = (ms) => (ms < 1000 ? "just now" : `${lasting(Math.floor(ms / 1000) * 1000).replace(".0 s", " s")} ago`);

export const time = (ms) => clock.format(new Date(ms));

export function day(ms) {
  const then = new Date(ms);
  return then.toDateString() === new Date().toDateString() ? time(ms) : `${then.toLocaleDateString("en-CA")} ${time(ms)}`;
}

// The clocks of this page and of the board may differ; ages are told by the board's.
let difference = 0;

export function setClock(now) {
  difference = now - Date.now();
}

export const now = () => Date.now() + difference;
