// The page: what each section of the feed is shown by, and what is said aloud.

import * as chart from "./chart.js";
import * as lanes from "./lanes.js";
import { follow } from "./live.js";
import * as sagas from "./sagas.js";
import * as side from "./side.js";
import * as story from "./story.js";
import { byId, count, day, mark, rate, setClock, several, write } from "./words.js";

// A reader is told how things stand at most this often, and only where something has changed.
const TELL = 15_000;

const newest = {};
let paused = false;
let away = null;
let told = { at: 0, failed: 0, stuck: 0 };

const shows = {
  table: ({ steps }) => {
    lanes.build(steps, story.open);
    story.build(steps);
  },
  status: (news) => {
    setClock(news.now);
    away = news.state === "away" ? news : null;
    const link = byId("management");
    link.hidden = !news.management;
    if (news.management) link.href = news.management;
    write(byId("foot"), `${news.broker}. History since ${day(news.began)}: ${several(news.sagas, "saga")}, ` +
      `${several(news.entries, "entry", "entries")}. The board only looks; the services' databases stay the truth.`);
    tellState(news);
  },
  figures: side.showFigures,
  lanes: lanes.show,
  chart: chart.show,
  groups: sagas.show,
  failures: side.showFailures,
  letters: side.showLetters,
};

function take(section, news) {
  newest[section] = news;
  cut = false;
  if (!paused || section === "table" || section === "status") shows[section](news);
  if (section === "status" || section === "figures") announce();
}

let cut = false;

function cutOff() {
  if (cut) return;
  cut = true;
  tellState(null);
}

/** How the connection stands: in a word at the top, in a sentence where something is wrong. */
function tellState(news) {
  const status = byId("status");
  const trouble = byId("trouble");
  if (cut || !news) {
    mark(status, "state", "away");
    write(status, "Board away");
    write(trouble, "The board itself does not answer: what you see is what it told last. It is asked again every second or two.");
    trouble.hidden = false;
  } else if (news.state === "away") {
    mark(status, "state", "away");
    write(status, news.text);
    write(trouble, `${news.why} This page comes back by itself.`);
    trouble.hidden = false;
  } else {
    trouble.hidden = true;
    mark(status, "state", paused ? "paused" : news.state);
    write(status, paused ? "Paused" : news.text);
  }
}

function announce() {
  const figures = newest.figures;
  if (!figures || Date.now() - told.at < TELL || document.hidden) return;
  const same = told.failed === figures.failed && told.stuck === figures.stuck;
  if (same && told.at) return;
  told = { at: Date.now(), failed: figures.failed, stuck: figures.stuck };
  write(byId("announcer"), `${several(figures.under_way, "saga")} under way, ${count(figures.stuck)} stuck, ` +
    `${count(figures.failed)} failed; ${rate(newest.chart?.average ?? 0)} completed per second.`);
}

byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  document.body.classList.toggle("paused", paused);
  if (newest.status) tellState(newest.status);
  if (!paused) for (const [section, news] of Object.entries(newest)) if (section !== "table") shows[section](news);
});

byId("find").addEventListener("submit", (event) => {
  event.preventDefault();
  const id = byId("find-id").value.trim();
  if (id) story.open(id);
});

addEventListener("keydown", (event) => {
  const typing = event.target instanceof HTMLInputElement || byId("story").open;
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    byId("find-id").focus();
  }
});

side.build();
sagas.build(story.open);
story.wire();
follow(take, cutOff);
