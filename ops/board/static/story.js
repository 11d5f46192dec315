// One saga's timeline, in a dialog: what is known, a picture of its way through the services, and each event.

import { byId, day, draw, lasting, make, mark, several, write } from "./words.js";

const AGAIN = 1000;
const TONES = { completed: "good", failed: "bad", undone: "back", stuck: "bad" };

let shown = null;
let again;
let asked = 0;
let services = [];

export function build(steps) {
  services = steps.map((step) => step.service);
}

export function wire() {
  const dialog = byId("story");
  byId("story-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("close", () => {
    shown = null;
    clearTimeout(again);
    if (location.hash) history.replaceState(null, "", location.pathname);
  });
  const linked = () => {
    const told = new URLSearchParams(location.hash.slice(1)).get("saga");
    if (told) open(told);
  };
  addEventListener("hashchange", linked);
  linked();
}

export function open(id) {
  shown = id;
  const dialog = byId("story");
  write(byId("story-title"), id);
  write(byId("story-state"), "Looking");
  mark(byId("story-state"), "tone", "");
  for (const part of ["said", "links"]) byId(`story-${part}`).replaceChildren();
  for (const part of ["facts", "steps", "events"]) byId(`story-${part}`).replaceChildren();
  byId("story-known").hidden = true;
  history.replaceState(null, "", `#${new URLSearchParams({ saga: id })}`);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  byId("story-title").focus();
  look();
}

async function look() {
  clearTimeout(again);
  const id = shown;
  const mine = (asked += 1);
  let story;
  try {
    const answer = await fetch(`/story?${new URLSearchParams({ saga: id })}`);
    story = await answer.json();
  } catch {
    story = { why: "The board does not answer; it is asked again." };
  }
  if (shown !== id || mine !== asked) return;
  if (story.why) {
    write(byId("story-state"), "Not found");
    write(byId("story-said"), story.why);
  } else {
    show(story);
  }
  if (story.why || !story.ended) again = setTimeout(look, AGAIN);
}

function show(story) {
  const state = byId("story-state");
  write(state, story.label);
  state.className = "kicker tag";
  mark(state, "tone", TONES[story.state] ?? "go");
  write(byId("story-said"), story.said);
  byId("story-known").hidden = false;
  byId("story-facts").replaceChildren(...story.facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  byId("story-steps").replaceChildren(...story.steps.map(([service, told, tone]) => {
    const tag = make("span", { class: "tag" }, told);
    mark(tag, "tone", tone);
    return make("li", {}, make("span", { class: "who" }, service), " ", tag);
  }));
  picture(story);
  const begin = story.events.length ? story.events[0].at : 0;
  const listed = story.events.map((event) => entry(event, begin));
  if (story.hidden) listed.push(make("li", {}, make("p", { class: "when" }, "…"), make("p", { class: "more" }, `${several(story.hidden, "moment")} in the middle left out`)));
  story.next.forEach((line, at) => listed.push(make("li", { class: "next" }, make("p", { class: "when" }, at ? "" : "next"), make("p", {}, line))));
  byId("story-events").replaceChildren(...listed);
  byId("story-links").replaceChildren(...story.links.map(([label, address]) =>
    make("a", { href: address, target: "_blank", rel: "noreferrer", class: "away" }, label)));
}

function entry(event, begin) {
  const body = make("div", {},
    make("p", {}, make("span", { class: "who" }, event.service), " ", event.did, " ", make("code", {}, event.type)),
  );
  for (const line of event.more) body.append(make("p", { class: "more" }, line));
  return make("li", {},
    make("p", { class: "when" }, `+${lasting(event.at - begin)}`, make("small", {}, day(event.at))),
    body);
}

/** The services as five rails, time from left to right, and the saga's way over them. */
function picture(story) {
  const svg = byId("story-picture");
  const [width, left, right] = [660, 92, 18];
  const rail = (at) => 20 + at * 30;
  svg.setAttribute("viewBox", `0 0 ${width} 160`);
  svg.setAttribute("aria-label", `The saga's way: ${several(story.events.length, "event")} in the order of the list below.`);
  const parts = [];
  services.forEach((service, at) => {
    parts.push(draw("text", { x: 14, y: rail(at) + 4 }, service));
    parts.push(draw("line", { class: "rail", x1: left, x2: width - right, y1: rail(at), y2: rail(at) }));
  });
  const events = story.events.filter((event) => services.includes(event.service));
  // By rank as much as by time: a retry of five minutes must not squeeze the rest into one spot.
  const begin = events.length ? events[0].at : 0;
  const long = Math.max(1, ...events.map((event) => event.at - begin));
  const x = (event, at) => {
    const byTime = (event.at - begin) / long;
    const byRank = events.length > 1 ? at / (events.length - 1) : 0;
    return left + 14 + (width - left - right - 28) * (0.35 * byTime + 0.65 * byRank);
  };
  const points = events.map((event, at) => ({ event, x: x(event, at), y: rail(services.indexOf(event.service)) }));
  for (let at = 1; at < points.length; at += 1) {
    const [from, to] = [points[at - 1], points[at]];
    const middle = (from.x + to.x) / 2;
    parts.push(draw("path", {
      class: to.event.mark === "back" ? "path undoing" : "path",
      d: `M${from.x} ${from.y}C${middle} ${from.y} ${middle} ${to.y} ${to.x} ${to.y}`,
    }));
  }
  for (const { event, x: cx, y: cy } of points) {
    parts.push(shape(event.mark, cx, cy, `${event.service} ${event.did} ${event.type}`));
  }
  svg.replaceChildren(...parts);
}

function shape(kind, x, y, title) {
  let drawn;
  if (kind === "back") drawn = draw("rect", { x: x - 5, y: y - 5, width: 10, height: 10, transform: `rotate(45 ${x} ${y})` });
  else if (kind === "bad") drawn = draw("path", { d: `M${x - 6} ${y - 6}h12v12h-12z` });
  else drawn = draw("circle", { cx: x, cy: y, r: kind === "quiet" ? 3.5 : 5.5 });
  drawn.setAttribute("class", kind);
  drawn.append(draw("title", {}, title));
  return drawn;
}
