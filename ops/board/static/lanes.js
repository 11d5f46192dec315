// The stage: five lanes, and a mark for each saga that can be shown, moving from lane to lane and back.
//
// A healthy saga crosses all five lanes between two looks. So a mark does not jump to where its saga is: it has a
// way before it, lane after lane, and takes one step of it at a time. Of a flood only some sagas get a mark; the
// figures under each lane count them all.

import { byId, count, lasting, make, mark, rate, write } from "./words.js";

const STEP = 260;
const MOST = 260;
const CELL = 18;
const MOST_STANDING = 90;

const still = matchMedia("(prefers-reduced-motion: reduce)");
const narrow = matchMedia("(max-width: 760px)");

const marks = new Map();
const taken = new Map();
let lanes = [];
let open = () => {};

export function build(steps, opens) {
  open = opens;
  lanes = steps.map((step) => {
    const figures = make("dl", { class: "lane-figures" });
    const heading = make("h3", {}, step.service);
    if (step.pivot) heading.append(" ", make("span", { class: "pivot" }, "pivot"));
    const lane = make("li", { class: "lane" },
      make("header", {}, heading, make("p", { title: `does its part on ${step.on}, and says ${step.emits}` }, `on ${step.on}`)),
      make("div", { class: "ahead" }),
      make("div", { class: "behind" }),
      figures);
    if (step.pivot) lane.dataset.pivot = "";
    if (step.after_pivot) {
      lane.dataset.afterPivot = "";
      lane.children[2].append(make("p", { class: "aside" }, "Past the pivot: no way back"));
    }
    return { lane, ahead: lane.children[1], behind: lane.children[2], figures: labelled(figures) };
  });
  byId("lanes").replaceChildren(...lanes.map((each) => each.lane));
  for (const each of marks.values()) each.node.remove();
  marks.clear();
  taken.clear();
}

function labelled(list) {
  const rows = {};
  for (const [key, label] of [["here", "here now"], ["rate", "a second"], ["ms", "a batch"], ["back", "to undo"], ["retry", "waiting"], ["stuck", "stuck"]]) {
    const value = make("dd", {}, "0");
    const row = make("div", {}, make("dt", {}, label), value);
    row.hidden = ["back", "retry", "stuck"].includes(key);
    rows[key] = { row, value };
    list.append(row);
  }
  rows.back.row.dataset.tone = "back";
  rows.stuck.row.dataset.tone = "bad";
  return rows;
}

export function show(news) {
  news.lanes.forEach((figures, at) => {
    const rows = lanes[at]?.figures;
    if (!rows) return;
    write(rows.here.value, count(figures.here));
    write(rows.rate.value, rate(figures.rate));
    rows.ms.row.hidden = figures.ms === null;
    if (figures.ms !== null) write(rows.ms.value, lasting(figures.ms));
    for (const key of ["back", "retry", "stuck"]) {
      rows[key].row.hidden = !figures[key];
      write(rows[key].value, count(figures[key]));
    }
  });
  write(byId("new"), `${rate(news.new)}/s`);
  write(byId("completed"), count(news.completed));
  write(byId("undone"), count(news.undone));
  if (narrow.matches || document.hidden) {
    for (const [id, each] of marks) drop(id, each);
    return;
  }
  const seen = new Set();
  for (const [id, lane, kind, failedAt] of news.dots) {
    seen.add(id);
    goTo(id, lane, kind, failedAt, true);
  }
  for (const [id, lane, how] of news.ended) {
    seen.add(id);
    leave(id, lane, how);
  }
  for (const [id, each] of marks) {
    // Its end was among those that a flood left out.
    if (!seen.has(id) && !each.leaving && (each.missed += 1) > 3) leave(id, each.last.lane, "unseen");
  }
}

function goTo(id, lane, kind, failedAt, standing) {
  const each = marks.get(id) ?? enter(id, standing ? lane : 0, kind);
  if (!each || each.leaving) return;
  each.missed = 0;
  const back = kind === "back";
  const from = each.last;
  if (from.lane === lane && from.kind === kind) return;
  if (still.matches) {
    each.way = [{ lane, kind }];
  } else {
    const turn = back && from.kind !== "back" ? Math.max(failedAt ?? lane, from.lane) : null;
    if (turn !== null) {
      for (let at = from.lane + 1; at <= turn; at += 1) each.way.push({ lane: at, kind: "forward" });
      for (let at = turn; at > lane; at -= 1) each.way.push({ lane: at, kind });
    } else {
      const step = lane > from.lane ? 1 : -1;
      for (let at = from.lane + step; at !== lane && from.lane !== lane; at += step) {
        each.way.push({ lane: at, kind: back ? "back" : "forward" });
      }
    }
    each.way.push({ lane, kind });
  }
  each.last = { lane, kind };
}

function leave(id, lane, how) {
  const each = marks.get(id) ?? (how === "unseen" || still.matches ? null : enter(id, 0, "forward"));
  if (!each || each.leaving) return;
  if (!still.matches && how === "completed") {
    goTo(id, lanes.length - 1, "forward");
    each.way.push({ lane: lanes.length, kind: "forward" });
  } else if (!still.matches && how !== "unseen") {
    if (each.last.kind === "back") goTo(id, 0, "back");
    else goTo(id, 0, "back", lane);
    each.way.push({ lane: -1, kind: "back" });
  }
  each.leaving = true;
}

function enter(id, lane, kind) {
  // What stands still, or goes wrong, is worth a mark before what hurries through.
  if (marks.size >= (kind === "forward" ? MOST : MOST + MOST_STANDING)) return null;
  const node = make("i", { class: "dot" });
  node.dataset.kind = kind === "back" ? "forward" : kind;
  node.title = id;
  node.addEventListener("click", () => open(id));
  const each = { node, lane: null, kind: null, slot: null, missed: 0, faded: 0, leaving: false, way: [], last: { lane, kind: kind === "back" ? "forward" : kind } };
  marks.set(id, each);
  const gate = kind !== "back" && lane === 0 && !still.matches;
  if (gate) {
    const box = boxOf(0, "forward");
    move(each, box.left - 24, box.top + box.height / 2);
    each.way.push({ lane, kind });
  } else {
    stand(id, each, { lane, kind: node.dataset.kind });
  }
  // Placed before it is there, or it would fly in from the corner.
  byId("dots").append(node);
  return each;
}

function stand(id, each, { lane, kind }) {
  release(each);
  each.lane = lane;
  each.kind = kind;
  each.node.dataset.kind = kind;
  if (lane < 0 || lane >= lanes.length) {
    const box = boxOf(Math.max(0, Math.min(lane, lanes.length - 1)), kind);
    move(each, lane < 0 ? box.left - 20 : box.left + box.width + 20, box.top + box.height / 2);
    each.node.classList.add("leaving");
    return;
  }
  const box = boxOf(lane, kind);
  const columns = Math.max(1, Math.floor((box.width - 16) / CELL));
  const rows = Math.max(1, Math.floor((box.height - 8) / CELL));
  const key = `${lane}${kind === "back" ? "b" : "f"}`;
  const slots = taken.get(key) ?? taken.set(key, new Set()).get(key);
  let slot = 0;
  while (slots.has(slot) && slot < columns * rows) slot += 1;
  each.node.hidden = slot >= columns * rows;
  if (each.node.hidden) return;
  slots.add(slot);
  each.slot = [key, slot];
  const column = Math.floor(slot / rows);
  const offset = (fromTheMiddle(rows)[slot % rows] - (rows - 1) / 2) * CELL;
  const x = kind === "back" ? box.left + box.width - 18 - column * CELL : box.left + 18 + column * CELL;
  move(each, x, box.top + box.height / 2 + offset);
}

/** Rows in the order in which they are filled: a single mark stands on the lane's axis. */
function fromTheMiddle(rows) {
  const middle = (rows - 1) / 2;
  return [...Array(rows).keys()].sort((one, other) => Math.abs(one - middle) - Math.abs(other - middle));
}

function boxOf(lane, kind) {
  const part = kind === "back" ? lanes[lane].behind : lanes[lane].ahead;
  const box = lanes[lane].lane;
  return { left: box.offsetLeft, width: box.offsetWidth, top: part.offsetTop, height: part.offsetHeight };
}

function move(each, x, y) {
  each.node.style.setProperty("--x", `${x}px`);
  each.node.style.setProperty("--y", `${y}px`);
}

function release(each) {
  if (each.slot) taken.get(each.slot[0]).delete(each.slot[1]);
  each.slot = null;
}

function drop(id, each) {
  release(each);
  each.node.remove();
  marks.delete(id);
}

function step() {
  if (!lanes.length) return;
  for (const [id, each] of marks) {
    if (each.way.length) {
      // Who is far behind hurries.
      const hop = each.way.length > 9 ? each.way.splice(0, 2).pop() : each.way.shift();
      stand(id, each, hop);
    } else if (each.leaving) {
      each.node.classList.add("leaving");
      release(each);
      if (still.matches || (each.faded += 1) > 2) drop(id, each);
    }
  }
}

function settle() {
  taken.clear();
  for (const [id, each] of marks) {
    each.slot = null;
    if (each.lane !== null) stand(id, each, { lane: each.lane, kind: each.kind });
  }
}

setInterval(step, STEP);
new ResizeObserver(settle).observe(byId("stage"));
