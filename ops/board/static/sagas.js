// The list: four groups as tabs, rows to walk over with the arrow keys. It holds still while somebody is in it.

import { ago, byId, count, lasting, make, mark, now, write } from "./words.js";

const GROUPS = [
  ["latest", "Latest", "When", "No saga has begun yet. Pay for one: saga pay --help tells how."],
  ["under_way", "Under way", "For", "Nothing is under way."],
  ["stuck", "Stuck", "For", "Nothing is stuck: every saga moves within its time."],
  ["failed", "Failed", "Ended", "No saga has failed."],
  ["completed", "Completed", "Ended", "No saga has completed yet."],
];

const tabs = new Map();
const rows = new Map();
let groups = {};
let chosen = "latest";
let open = () => {};
let inside = false;

export function build(opens) {
  open = opens;
  for (const [key, label] of GROUPS) {
    const number = make("span", { class: "count" }, "0");
    const tab = make("button", { type: "button", role: "tab", id: `tab-${key}`, "aria-controls": "panel" }, label, number);
    tab.addEventListener("click", () => choose(key));
    tabs.set(key, { tab, number });
    byId("groups").append(tab);
  }
  byId("groups").addEventListener("keydown", (event) => {
    const keys = [...tabs.keys()];
    const at = keys.indexOf(chosen);
    const next = { ArrowRight: at + 1, ArrowLeft: at - 1 + keys.length, Home: 0, End: keys.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    choose(keys[next % keys.length]);
    tabs.get(chosen).tab.focus();
  });
  const body = byId("rows");
  body.addEventListener("keydown", walk);
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row && !getSelection().toString()) open(row.dataset.id);
  });
  const panel = byId("panel");
  for (const name of ["focusin", "focusout", "pointerenter", "pointerleave"]) {
    panel.addEventListener(name, () => setTimeout(hold));
  }
  choose(chosen);
  setInterval(tick, 1000);
}

export function show(news) {
  groups = news;
  for (const [key, { number }] of tabs) write(number, count(news[key].count));
  fill();
}

function choose(key) {
  chosen = key;
  for (const [each, { tab }] of tabs) {
    tab.setAttribute("aria-selected", String(each === key));
    tab.tabIndex = each === key ? 0 : -1;
  }
  byId("panel").setAttribute("aria-labelledby", `tab-${key}`);
  write(byId("column-time"), GROUPS.find(([each]) => each === key)[2]);
  byId("rows").replaceChildren();
  rows.clear();
  fill();
}

function hold() {
  const panel = byId("panel");
  const before = inside;
  inside = panel.matches(":hover") || byId("rows").contains(document.activeElement);
  byId("held").hidden = !(inside && rows.size);
  if (before && !inside) fill();
}

function fill() {
  const group = groups[chosen] ?? { rows: [], count: 0 };
  const body = byId("rows");
  const still = inside && rows.size > 0;
  const wanted = new Map(group.rows.map((row) => [row.id, row]));
  if (still) {
    for (const [id, each] of rows) each.show(wanted.get(id) ?? Object.values(groups).flatMap((other) => other.rows).find((row) => row.id === id));
  } else {
    for (const [id, each] of rows) {
      if (!wanted.has(id)) {
        each.node.remove();
        rows.delete(id);
      }
    }
    group.rows.forEach((row, at) => {
      const each = rows.get(row.id) ?? add(row.id);
      each.show(row);
      if (body.children[at] !== each.node) body.insertBefore(each.node, body.children[at] ?? null);
    });
  }
  const first = body.querySelector("button[tabindex='0']") ?? body.querySelector("button");
  if (first) first.tabIndex = 0;
  const nothing = byId("nothing");
  const left = group.count - rows.size;
  nothing.hidden = rows.size > 0 && left <= 0;
  write(nothing, rows.size ? `and ${count(Math.max(0, left))} more` : GROUPS.find(([each]) => each === chosen)[3]);
}

function add(id) {
  const button = make("button", { type: "button", class: "id", tabindex: "-1", title: id }, id || "(no id)");
  button.addEventListener("focus", () => {
    for (const other of byId("rows").querySelectorAll("button[tabindex='0']")) other.tabIndex = -1;
    button.tabIndex = 0;
  });
  const [at, tag, what, when] = [make("td"), make("span", { class: "tag" }), make("span"), make("td", { class: "time" })];
  const node = make("tr", {}, make("th", { scope: "row" }, button), at, make("td", {}, tag, what), when);
  node.dataset.id = id;
  const each = {
    node,
    row: null,
    show(row) {
      if (!row) return;
      each.row = row;
      write(at, row.at);
      write(tag, row.tag);
      mark(tag, "tone", row.tone);
      write(what, row.what);
      what.parentNode.title = row.what;
      each.tick();
    },
    tick() {
      if (!each.row) return;
      const age = now() - each.row.since;
      write(when, each.row.ended ? ago(age) : lasting(age < 10_000 ? age : Math.floor(age / 1000) * 1000));
      if (each.row.took !== null) when.title = `took ${lasting(each.row.took)}`;
    },
  };
  rows.set(id, each);
  return each;
}

function tick() {
  for (const each of rows.values()) each.tick();
}

function walk(event) {
  const buttons = [...byId("rows").querySelectorAll("button")];
  const at = buttons.indexOf(event.target);
  const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1, PageDown: at + 9, PageUp: at - 9 }[event.key];
  if (at < 0 || next === undefined) return;
  event.preventDefault();
  buttons[Math.max(0, Math.min(next, buttons.length - 1))].focus();
}
