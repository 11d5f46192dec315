// What stands beside the list: the figures, failures by reason, and the letters that wait for a person.

import { byId, count, day, draw, lasting, make, mark, write } from "./words.js";

const FIGURES = [
  ["under_way", "under way", ""],
  ["stuck", "stuck", "bad"],
  ["failed", "failed", "back"],
  ["parked", "parked", "bad"],
  ["dead", "dead", "bad"],
  ["median", "typical time", ""],
];
const figures = new Map();

export function build() {
  for (const [key, label] of FIGURES) {
    const value = make("dd", {}, "0");
    const row = make("div", {}, make("dt", {}, label), value);
    figures.set(key, { row, value });
    byId("figures").append(row);
  }
}

export function showFigures(news) {
  for (const [key, , tone] of FIGURES) {
    const { row, value } = figures.get(key);
    const told = news[key];
    write(value, told === null ? "–" : key === "median" ? lasting(told) : count(told));
    mark(row, "tone", tone && told ? tone : "");
  }
}

export function showFailures({ since, reasons, more }) {
  write(byId("failures-span"), since ? `since ${day(since)}` : "");
  byId("no-failures").hidden = reasons.length > 0;
  const most = Math.max(1, ...reasons.map((each) => each.count));
  const bars = reasons.map(({ service, reason, count: number }) => {
    const name = make("span", { class: "name", title: `${service}: ${reason}` }, reason.replaceAll("_", " "), " ", make("span", {}, `at ${service}`));
    const bar = draw("svg", { viewBox: "0 0 100 1", preserveAspectRatio: "none", "aria-hidden": "true" });
    bar.append(draw("rect", { class: "ground", width: 100, height: 1 }), draw("rect", { class: "full", width: (100 * number) / most, height: 1 }));
    return make("li", {}, name, make("span", { class: "count" }, count(number)), bar);
  });
  if (more) bars.push(make("li", {}, make("span", { class: "name" }, "other reasons"), make("span", { class: "count" }, count(more))));
  byId("failures").replaceChildren(...bars);
}

export function showLetters({ source, rows }) {
  write(byId("letters-source"), source);
  byId("letters").replaceChildren(...rows.map((row) => make("tr", {},
    make("th", { scope: "row" }, row.service),
    cell(row.parked, row.parked_url, `${row.service}.parked`),
    cell(row.dead, row.dead_url, `${row.service}.dead`))));
}

function cell(number, address, queue) {
  const told = number === null ? "–" : count(number);
  const made = make("td", {});
  mark(made, "tone", number ? "bad" : "");
  made.append(address
    ? make("a", { href: address, target: "_blank", rel: "noreferrer", "aria-label": `${told} in ${queue}, in the management UI` }, told)
    : told);
  return made;
}
