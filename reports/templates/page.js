"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const PAGE_SIZE = 50;
  const [RUN, FILE, PROMPT, SEED, MEDIA, FACTS, SCORES, REASONS] = [0, 1, 2, 3, 4, 5, 6, 7];
  const several = data.runs.length > 1;

  // All text goes through textContent: nothing that a prompt or a file name says can become markup.
  function make(tag, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  }
  const percent = (value) => value.toFixed(2);
  const promptId = (video) => data.prompts[video[PROMPT]][0];
  const promptText = (video) => data.prompts[video[PROMPT]][1];

  function fillClip(button, video) {
    const poster = data.posters[video[MEDIA]];
    const clip = data.clips[video[MEDIA]];
    button.replaceChildren();
    if (poster) {
      const image = make("img");
      if (!poster.startsWith("data:")) image.loading = "lazy";
      image.decoding = "async";
      image.alt = "";
      image.addEventListener("error", () => image.replaceWith(make("span", "none", "no still")));
      image.src = poster;
      button.append(image);
    } else {
      button.append(make("span", "none", "no still"));
    }
    button.append(make("span", "play"));
    button.disabled = !clip;
    if (clip) button.addEventListener("click", () => play(video));
  }

  const dialog = document.getElementById("player");
  const stage = dialog.querySelector(".stage");
  const trouble = dialog.querySelector(".trouble");

  function explain(text, clip) {
    trouble.replaceChildren(text + " ");
    if (!clip[0].startsWith("data:")) {
      const link = make("a", "", "Open the file");
      link.href = clip[0];
      trouble.append(link);
    }
    trouble.hidden = false;
  }

  function play(video) {
    const clip = data.clips[video[MEDIA]];
    trouble.hidden = true;
    stage.replaceChildren();
    if (!clip) {
      trouble.textContent = "There is no clip to play.";
      trouble.hidden = false;
    } else if (clip[1]) {
      const player = make(clip[1].startsWith("image/") ? "img" : "video");
      if (player instanceof HTMLVideoElement) {
        player.controls = player.loop = player.muted = player.playsInline = true;
        if (data.posters[video[MEDIA]]) player.poster = data.posters[video[MEDIA]];
      }
      player.addEventListener("error", () => explain("This browser could not play the clip: it may have moved, or its codec is not supported.", clip));
      player.src = clip[0];
      stage.append(player);
      if (player.play) player.play().catch(() => {});  // an unplayable clip reports itself by the error event
    } else {
      explain("Browsers do not play this file format.", clip);
    }
    document.getElementById("player-title").textContent = promptText(video);
    const facts = [several ? "run " + data.runs[video[RUN]].label : "", promptId(video), video[SEED] === null ? "" : "seed " + video[SEED], video[FILE], video[FACTS]];
    document.getElementById("player-facts").textContent = facts.filter(Boolean).join(" · ");
    document.getElementById("player-scores").replaceChildren(...data.dimensions.map((name, i) => {
      const row = make("tr");
      const value = video[SCORES][i];
      row.append(make("td", "", name), make("td", "", value === null ? video[REASONS][i] || "not run" : percent(value) + " %"));
      return row;
    }));
    dialog.showModal();
  }
  dialog.addEventListener("close", () => stage.replaceChildren());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  for (const button of document.querySelectorAll("button.clip[data-video]")) {
    fillClip(button, data.videos[button.dataset.video]);
  }
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((fold) => { fold.open = true; }));

  // Samples side by side: one clock for all clips that are shown; a shorter clip waits at its end.
  const controls = document.getElementById("sample-controls");
  if (controls) {
    const toggle = document.getElementById("sample-play");
    const slider = document.getElementById("sample-time");
    const seed = document.getElementById("sample-seed");
    const lists = [...document.querySelectorAll(".samples")];
    const TOLERANCE_S = 0.12;  // two clips further apart than this are brought together again
    let players = [];
    let started = null;

    function fillSample(box) {
      const video = data.videos[box.dataset.video];
      const poster = data.posters[video[MEDIA]];
      const clip = data.clips[video[MEDIA]];
      const isFilm = clip && clip[1].startsWith("video/");
      const source = isFilm || (clip && clip[1]) ? clip[0] : poster;
      if (!source) { box.replaceChildren(make("span", "", "no clip")); return; }
      const element = make(isFilm ? "video" : "img");
      if (isFilm) {
        element.muted = element.playsInline = true;
        element.preload = "auto";
        if (poster) element.poster = poster;
      } else {
        element.alt = "";
      }
      element.addEventListener("error", () => box.replaceChildren(make("span", "", "cannot be played")));
      element.src = source;
      box.replaceChildren(element);
    }
    const end = (player) => player.duration || 0;
    const longest = () => Math.max(0.04, ...players.map(end));
    function seek(time) {
      for (const player of players) player.currentTime = Math.min(time, end(player));
      slider.value = time / longest();
    }
    function pause() {
      started = null;
      players.forEach((player) => player.pause());
      toggle.setAttribute("aria-pressed", "false");
      toggle.textContent = "▶ Play all in sync";
    }
    function start(now, time) {
      started = now - 1000 * time;
      seek(time);
      for (const player of players) player.play().catch(() => {});
    }
    function tick(now) {
      if (started === null) return;
      const time = (now - started) / 1000;
      if (time >= longest()) start(now, 0);
      else {
        slider.value = time / longest();
        for (const player of players) {
          if (time < end(player) && Math.abs(player.currentTime - time) > TOLERANCE_S) player.currentTime = time;
        }
      }
      requestAnimationFrame(tick);
    }
    function show() {
      pause();
      for (const list of lists) {
        list.hidden = seed !== null && list.dataset.seed !== seed.value;
        for (const box of list.querySelectorAll(".sample")) {
          if (list.hidden) box.replaceChildren();
          else fillSample(box);
        }
      }
      players = [...document.querySelectorAll(".sample video")];
      slider.value = 0;
      toggle.disabled = slider.disabled = players.length === 0;
    }
    toggle.addEventListener("click", () => {
      if (started === null) {
        toggle.setAttribute("aria-pressed", "true");
        toggle.textContent = "❚❚ Pause";
        const now = performance.now();
        start(now, Number(slider.value) < 0.99 ? slider.value * longest() : 0);
        requestAnimationFrame(tick);
      } else {
        pause();
        seek(slider.value * longest());
      }
    });
    slider.addEventListener("input", () => { const at = slider.value * longest(); pause(); seek(at); });
    if (seed) seed.addEventListener("change", show);
    show();
    for (const button of document.querySelectorAll("[data-scores]")) {
      button.addEventListener("click", () => play(data.videos[button.dataset.scores]));
    }
  }

  const table = document.getElementById("videos-table");
  if (!table) return;
  const showSeed = table.querySelector("[data-sort=seed]") !== null;
  const body = table.tBodies[0];
  const filter = document.getElementById("filter");
  const runFilter = document.getElementById("run-filter");
  const pager = document.getElementById("pager");
  const haystack = data.videos.map((video) => [promptText(video), promptId(video), video[FILE]].join("\n").toLowerCase());
  // Runs side by side: a prompt's videos stay together until a column is sorted.
  const order = data.videos.map((_, i) => i).sort((i, j) => data.videos[i][PROMPT] - data.videos[j][PROMPT] || data.videos[i][RUN] - data.videos[j][RUN] || i - j);
  const state = { key: null, descending: false, page: 0 };

  const KEYS = { run: (video) => video[RUN], prompt: (video) => promptText(video).toLowerCase(), seed: (video) => video[SEED] };
  function compare(a, b) {
    const read = KEYS[state.key] || ((video) => video[SCORES][state.key]);
    const [x, y] = [read(a), read(b)];
    if (x === y) return 0;
    if (x === null) return 1;  // unscored stays last, whichever way the column is sorted
    if (y === null) return -1;
    return (x < y ? -1 : 1) * (state.descending ? -1 : 1);
  }

  function makeRow(video) {
    const row = make("tr");
    const still = make("td", "still");
    const button = make("button", "clip");
    button.setAttribute("aria-label", "Play " + video[FILE]);
    fillClip(button, video);
    still.append(button);
    row.append(still);
    if (several) {
      const run = data.runs[video[RUN]];
      const cell = make("td");
      cell.append(make("span", "chip series-" + run.series, run.label));
      row.append(cell);
    }
    const prompt = make("td", "prompt");
    const text = make("bdi", "clamp", promptText(video));
    text.title = promptText(video);
    prompt.append(text, make("span", "note", promptId(video)));
    row.append(prompt);
    if (showSeed) row.append(make("td", "number", video[SEED] === null ? "–" : video[SEED]));
    video[SCORES].forEach((value, i) => {
      const cell = make("td", "number score" + (value === null ? " gap" : ""), value === null ? "–" : percent(value));
      if (value === null) cell.title = video[REASONS][i] || "not run";
      row.append(cell);
    });
    return row;
  }

  function show() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const run = runFilter ? runFilter.value : "";
    const rows = order
      .filter((i) => words.every((word) => haystack[i].includes(word)) && (run === "" || data.videos[i][RUN] === Number(run)))
      .map((i) => data.videos[i]);
    if (state.key !== null) rows.sort(compare);
    const pages = Math.max(1, Math.ceil(rows.length / PAGE_SIZE));
    state.page = Math.min(state.page, pages - 1);
    const start = state.page * PAGE_SIZE;
    body.replaceChildren(...rows.slice(start, start + PAGE_SIZE).map(makeRow));
    if (!rows.length) {
      const cell = make("td", "empty", "No video matches.");
      cell.colSpan = table.tHead.rows[0].cells.length;
      body.insertRow().append(cell);
    }
    pager.hidden = pages === 1;
    document.getElementById("previous").disabled = state.page === 0;
    document.getElementById("next").disabled = state.page === pages - 1;
    document.getElementById("page-status").textContent = `page ${state.page + 1} of ${pages}`;
    document.getElementById("table-status").textContent = rows.length === data.videos.length
      ? `${rows.length.toLocaleString("en")} videos` : `${rows.length.toLocaleString("en")} of ${data.videos.length.toLocaleString("en")} videos`;
  }

  table.tHead.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-sort]");
    if (!button) return;
    const key = button.dataset.sort;
    const isText = key in KEYS;
    state.descending = state.key === key ? !state.descending : !isText;  // scores start with the highest
    state.key = key;
    state.page = 0;
    for (const head of table.tHead.querySelectorAll("[aria-sort]")) head.setAttribute("aria-sort", "none");
    button.closest("th").setAttribute("aria-sort", state.descending ? "descending" : "ascending");
    show();
  });
  function turn(by) {
    state.page += by;
    show();
    table.parentElement.scrollTop = 0;
    table.scrollIntoView({ block: "nearest" });
  }
  document.getElementById("previous").addEventListener("click", () => turn(-1));
  document.getElementById("next").addEventListener("click", () => turn(1));
  const refresh = () => { state.page = 0; show(); };
  filter.addEventListener("input", refresh);
  if (runFilter) runFilter.addEventListener("change", refresh);
  show();
})();
