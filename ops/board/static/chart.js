// The last minutes as a line of completed sagas and a dashed one of failed sagas, each a second wide.

import { byId, draw, rate, time, write } from "./words.js";

const [WIDTH, HEIGHT] = [600, 96];
const LEAST = 60;
let described = 0;

/** The mean of each second and its neighbours: what is to be seen is the pace, not the chance of each second. */
function smooth(values) {
  return values.map((_, at) => {
    const near = values.slice(Math.max(0, at - 2), at + 3);
    return near.reduce((sum, value) => sum + value, 0) / near.length;
  });
}

export function show({ completed: every, failed: everyFailed, until, average }) {
  const chart = byId("chart");
  // A board that was opened a minute ago has no use for four empty ones before it.
  const first = every.findIndex((value, at) => value || everyFailed[at]);
  const seconds = Math.max(LEAST, first < 0 ? 0 : every.length - first);
  const [counted, countedFailed] = [every.slice(-seconds), everyFailed.slice(-seconds)];
  const [completed, failed] = [smooth(counted), smooth(countedFailed)];
  const most = Math.max(...counted);
  const span = seconds < 180 ? `${seconds} seconds` : `${Math.round(seconds / 60)} minutes`;
  const top = Math.max(4, ...completed, ...failed) * 1.08;
  const x = (at) => (at / (completed.length - 1)) * WIDTH;
  const y = (value) => HEIGHT - 1 - (value / top) * (HEIGHT - 4);
  const line = (values) => values.map((value, at) => `${at ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const drawn = [
    draw("path", { class: "area", d: `${line(completed)}L${WIDTH} ${HEIGHT}L0 ${HEIGHT}Z` }),
    draw("path", { class: "axis", d: `M0 ${HEIGHT - 0.5}H${WIDTH}` }),
    draw("path", { class: "completed", d: line(completed) }),
  ];
  if (failed.some((value) => value)) drawn.push(draw("path", { class: "failed", d: line(failed) }));
  chart.replaceChildren(...drawn);
  write(byId("rate"), rate(average));
  write(byId("chart-span"), `last ${span}, at most ${most}/s`);
  if (Date.now() - described > 10_000) {
    described = Date.now();
    chart.setAttribute("aria-label",
      `Sagas per second in the last ${span} until ${time(until)}: ` +
      `${rate(average)} completed now, ${most} at most; failed ${Math.max(...countedFailed)} at most.`);
  }
}
