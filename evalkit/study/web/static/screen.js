// One screen: clips, questions, and answers on their way.

import { get } from "./api.js";
import { Choice } from "./choice.js";
import { Clock, reloading } from "./clock.js";
import { Memory } from "./memory.js";
import { Outbox } from "./outbox.js";
import { Ranking } from "./rank.js";
import { Stopwatch } from "./stopwatch.js";
import { Wall } from "./wall.js";

const data = JSON.parse(document.getElementById("screen-data").textContent);
const memory = new Memory(data.tag);
const outbox = new Outbox(memory, data.pageToken);
const watch = new Stopwatch(data.seconds);
const element = (id) => document.getElementById(id);
const figures = [...document.querySelectorAll(".clip")];
const videos = figures.map((figure) => figure.querySelector("video"));
const letters = figures.map((figure) => figure.dataset.letter);
const next = element("next");
let leaving = false;

// ---- clips ----

const wall = new Wall(element("wall"));
const clock = new Clock(videos);
const play = element("play");
const scrub = element("scrub");

function toggle() {
  if (clock.playing) clock.pause();
  else clock.play();
}

play.addEventListener("click", toggle);
element("restart").addEventListener("click", () => clock.seek(0));
scrub.addEventListener("input", () => clock.seek((scrub.value / 1000) * clock.duration));
clock.addEventListener("change", () => {
  play.setAttribute("aria-label", clock.playing ? "Pause" : "Play");
  play.classList.toggle("playing", clock.playing);
});
clock.addEventListener("tick", () => {
  wall.root.classList.toggle("waiting", clock.waiting);
  if (!clock.duration) return;
  scrub.value = Math.round((1000 * clock.time) / clock.duration);
  const words = `${clock.time.toFixed(1)} / ${clock.duration.toFixed(1)} s`;
  if (words !== element("time").textContent) element("time").textContent = words;
});
document.addEventListener("keydown", (event) => {
  if (event.key !== " " || event.target.closest("a, button, input, summary")) return;
  event.preventDefault();
  toggle();
});
figures.forEach((figure, n) => reloading(videos[n], (trouble) => (figure.querySelector(".trouble").hidden = !trouble)));
if (!matchMedia("(prefers-reduced-motion: reduce)").matches) clock.play();

// ---- questions ----

const announce = (text) => (element("announcer").textContent = text);
const questions = new Map();
const stored = new Map(); // what the study is known to have, as JSON, by axis

function changed(axis) {
  const { answer, draft } = questions.get(axis);
  memory.remove(`draft:${data.screen}:${axis}`);
  if (answer === null && draft) memory.set(`draft:${data.screen}:${axis}`, draft);
  if (answer !== null && JSON.stringify(answer) !== stored.get(axis)) {
    stored.set(axis, JSON.stringify(answer));
    outbox.add("answer", { screen: data.screen, axis, answer, seconds: watch.seconds });
  }
  refresh();
}

function show(axis, answer) {
  stored.set(axis, JSON.stringify(answer));
  questions.get(axis).show(answer);
}

function refresh() {
  const open = [...questions.values()].filter((question) => question.answer === null).length;
  next.disabled = leaving || open > 0 || outbox.state === "refused";
  next.title = open ? `${open} of ${questions.size} questions are open` : "";
}

for (const root of document.querySelectorAll(".question")) {
  const { axis } = root.dataset;
  const options = { letters, ties: data.ties, announce, onChange: () => changed(axis) };
  questions.set(axis, data.protocol === "rank" ? new Ranking(root, options) : new Choice(root, options));
}
for (const [axis, answer] of Object.entries({ ...data.answers, ...outbox.pending(data.screen) })) show(axis, answer);
for (const [axis, question] of questions) {
  const draft = data.protocol === "rank" && memory.get(`draft:${data.screen}:${axis}`);
  if (draft && draft.at.length === letters.length) question.draft = draft;
}
refresh();

if (data.protocol === "rank") {
  const rankings = [...questions.values()];
  rankings.forEach((ranking) => ranking.setAspect(videos[0].width / videos[0].height));
  const paint = (video, clip) => rankings.forEach((ranking) => ranking.paint(clip, video));
  videos.forEach((video, clip) => {
    video.addEventListener("loadeddata", () => paint(video, clip));
    if (video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA) paint(video, clip);
  });
  clock.addEventListener("tick", function half() {
    if (clock.waiting || clock.time < Math.min(...videos.map((video) => video.duration)) / 2) return;
    clock.removeEventListener("tick", half);
    videos.forEach(paint);
  });
}
wall.fit();
const prompt = element("prompt");
if (prompt.scrollHeight > prompt.clientHeight) prompt.tabIndex = 0; // so that keys can scroll it

// ---- saving ----

const STATES = {
  idle: () => "",
  saving: () => "Saving …",
  saved: () => "Saved",
  away: ({ seconds }) => `Cannot reach the study. Your answers are kept here; next try in ${seconds} s.`,
  refused: ({ message }) => message,
};

outbox.addEventListener("state", ({ detail }) => {
  const saving = element("saving");
  if ((detail.state === "away" || detail.state === "refused") && saving.dataset.state !== detail.state) {
    announce(STATES[detail.state](detail));
  } else if (detail.state === "saved" && saving.dataset.state === "away") {
    announce("The study is back; all answers are saved.");
  }
  saving.dataset.state = detail.state;
  saving.textContent = STATES[detail.state](detail);
  if (detail.state === "refused") leaving = false;
  refresh();
});

outbox.addEventListener("sent", ({ detail: { entry, data: answer } }) => {
  if (entry.kind === "done" && entry.body.screen === data.screen) location.assign(answer.next);
});

next.addEventListener("click", () => {
  leaving = true;
  refresh();
  outbox.add("done", { screen: data.screen, seconds: watch.seconds });
});

const OTHER = "Another personal link has been opened in this browser. Open your own link again to go on.";

// Another tab may have answered meanwhile, or somebody may have opened another link, or the right one again.
async function compare() {
  if (document.hidden || leaving) return;
  const { status, data: state } = await get(`/state/${data.screen}`).catch(() => ({}));
  if (!status || status === 429 || status >= 500) return;
  const mine = status === 200 && state.pageToken === data.pageToken;
  if (!mine) outbox.stop(OTHER);
  else if (outbox.state === "refused") location.reload();
  else if (outbox.empty) catchUp(state.answers);
}

function catchUp(answers) {
  for (const [axis, answer] of Object.entries(answers)) {
    if (questions.has(axis) && stored.get(axis) !== JSON.stringify(answer)) show(axis, answer);
  }
  refresh();
}
document.addEventListener("visibilitychange", compare);
addEventListener("focus", compare);
addEventListener("pageshow", (event) => event.persisted && location.reload());

// ---- the next screen's clips, once this one's are there ----

async function fetchAhead() {
  if (videos.some((video) => video.readyState < HTMLMediaElement.HAVE_ENOUGH_DATA)) {
    setTimeout(fetchAhead, 500);
  } else if (!navigator.connection?.saveData) {
    for (const address of data.ahead) await (await fetch(address)).arrayBuffer();
  }
}
fetchAhead().catch(() => {}); // then they come when they are shown
