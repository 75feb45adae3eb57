"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function options(select, labels) {
  select.replaceChildren(...labels.map((label, index) => element("option", { value: index }, label)));
}

// ---------------------------------------------------------------------------------------------------------- tables

/** Decimal places that give the largest of some values three digits. */
function placesFor(values) {
  const largest = Math.max(...values.map(Math.abs));
  return largest > 0 ? Math.min(Math.max(2 - Math.floor(Math.log10(largest)), 0), 6) : 0;
}

const fixed = (value, places) => value.toFixed(places).replace("-", "−");

/** A mean and its interval; also the number of clips, where it is not that of the row. */
function estimate([mean, low, high, count], places, best, rowCount = count) {
  const interval = element("span", { className: "interval" }, `[${fixed(low, places)}, ${fixed(high, places)}]`);
  if (count !== rowCount) interval.append(` (${count})`);
  return element("td", { className: best ? "best" : "" }, `${fixed(mean, places)} `, interval);
}

const ARROWS = { lower: " ↓", higher: " ↑", zero: " → 0" };

function summaryTable(table, cells, cutoffs, metrics) {
  const head = element("tr", {}, element("th", { scope: "col" }, "system"), element("th", { scope: "col" }, "clips"));
  for (const metric of metrics) {
    head.append(element("th", { scope: "col" }, DATA.metrics[metric].name + ARROWS[DATA.metrics[metric].better]));
  }
  const shown = cutoffs.flatMap((cutoff) => Object.values(cells[cutoff] ?? {}));
  const places = metrics.map((metric) => placesFor(shown.flatMap((row) => row[metric]?.slice(0, 3) ?? [])));
  const groups = cutoffs.map((cutoff) => {
    const rows = DATA.systems.map((system, index) => [system, cells[cutoff]?.[index] ?? {}]);
    const present = rows.filter(([, row]) => Object.keys(row).length > 0);
    const best = metrics.map((metric) => {
      const means = present.filter(([, row]) => row[metric]).map(([, row]) => row[metric][0]);
      return DATA.metrics[metric].better === "higher" ? Math.max(...means) : Math.min(...means);
    });
    const title = element("th", { colSpan: 2 + metrics.length, scope: "rowgroup" }, `cutoff ${DATA.cutoffs[cutoff]}`);
    const lines = present.map(([system, row]) => {
      const count = Math.max(...Object.values(row).map((cell) => cell[3]));
      const line = element("tr", {}, element("th", { scope: "row" }, system), element("td", {}, String(count)));
      metrics.forEach((metric, at) => {
        line.append(row[metric] ? estimate(row[metric], places[at], row[metric][0] === best[at], count) : element("td", {}, "–"));
      });
      return line;
    });
    return element("tbody", {}, element("tr", { className: "group" }, title), ...lines);
  });
  table.replaceChildren(element("thead", {}, head), ...groups.filter((group) => group.rows.length > 1));
  return table.tBodies.length > 0;
}

function startTables() {
  options(byId("table-class"), DATA.classes);
  options(byId("table-cutoff"), ["every cutoff", ...DATA.cutoffs]);
  const boxes = DATA.metrics.map((metric) => element("input", { type: "checkbox", checked: metric.shown }));
  boxes.forEach((box, index) => byId("table-metrics").append(element("label", {}, box, ` ${DATA.metrics[index].name}`)));

  function draw() {
    const chosen = Number(byId("table-cutoff").value);
    const cutoffs = chosen ? [chosen - 1] : [...DATA.cutoffs.keys()];
    const metrics = [...boxes.keys()].filter((index) => boxes[index].checked);
    const of = byId("table-class").value;
    summaryTable(byId("table-every"), DATA.every[of], cutoffs, metrics);
    if (DATA.walls) byId("no-wall-free").hidden = summaryTable(byId("table-wall-free"), DATA.wall_free[of], cutoffs, metrics);
  }
  byId("scores").addEventListener("change", draw);
  draw();
}

// ----------------------------------------------------------------------------------------------- paired comparison

function pairRow(metric, { difference, worse, count }) {
  const { name, better } = DATA.metrics[metric];
  const [, low, high] = difference;
  return element(
    "tr", {},
    element("th", { scope: "row" }, name + ARROWS[better]),
    estimate(difference, placesFor(difference), low > 0 || high < 0),
    element("td", {}, `${worse} of ${count}`),
  );
}

function worstList(metric, { worst }) {
  if (worst.length === 0) return [];
  const places = placesFor(worst.map(([, difference]) => difference));
  const rows = worst.map(([clip, difference]) => {
    const value = `${difference > 0 ? "+" : ""}${fixed(difference, places)}`;
    return element("tr", {}, element("th", { scope: "row" }, clip), element("td", {}, value));
  });
  const table = element("table", { className: "figures" }, element("tbody", {}, ...rows));
  return [element("div", {}, element("h3", {}, `Worst by ${DATA.metrics[metric].name}`), table)];
}

function startPairs() {
  options(byId("pair-class"), DATA.classes);
  options(byId("pair-cutoff"), DATA.cutoffs);
  for (const [id, system] of [["pair-a", DATA.pair_shown[0]], ["pair-b", DATA.pair_shown[1]]]) {
    options(byId(id), DATA.systems);
    byId(id).value = system;
  }

  function draw() {
    const [a, b] = [Number(byId("pair-a").value), Number(byId("pair-b").value)];
    const key = [byId("pair-class").value, byId("pair-cutoff").value, a, b].join(" ");
    const metrics = Object.entries(DATA.pairs[key] ?? {});
    byId("no-pair").hidden = metrics.length > 0;
    byId("pair").hidden = metrics.length === 0;
    byId("pair-title").textContent = `${DATA.systems[a]} minus ${DATA.systems[b]}`;
    byId("pair-worse").textContent = `clips where ${DATA.systems[a]} is worse`;
    byId("pair-rows").replaceChildren(...metrics.map(([metric, pair]) => pairRow(metric, pair)));
    byId("pair-worst").replaceChildren(...metrics.flatMap(([metric, pair]) => worstList(metric, pair)));
  }
  byId("paired").addEventListener("change", draw);
  draw();
}

// ---------------------------------------------------------------------------------------------------------- player

async function decode(id) {
  const bytes = Uint8Array.from(atob(byId(`audio-${id}`).textContent), (character) => character.charCodeAt(0));
  return new OfflineAudioContext(1, 1, SAMPLE_RATE).decodeAudioData(bytes.buffer);
}

// ------------------------------------------------------------------------------------------------------- listening

/** Chance of at least `right` right answers of `trials` by guessing. */
function binomialP(right, trials) {
  let term = 0.5 ** trials;
  let sum = 0;
  for (let k = 0; k <= trials; k++) {
    if (k >= right) sum += term;
    term *= (trials - k) / (k + 1);
  }
  return Math.min(1, sum);
}

const coin = () => crypto.getRandomValues(new Uint8Array(1))[0] < 128;
const clock = (seconds) => `${seconds.toFixed(1)} s`;

function startListening() {
  const player = new Player(show, true);
  window.player = player; // for the browser tests, which listen to its output
  const panels = [...document.querySelectorAll(".clip")];
  let clip = 0;
  let decoded = new Map(); // the signals of the clip, by name
  let x = null; // "A" or "B"; known to nothing that is drawn
  let right = 0;
  let trials = 0;
  let ticking = false;

  function show() {
    document.body.classList.toggle("moving", player.playing);
    byId("play").textContent = player.playing ? "Pause" : "Play";
    for (const button of document.querySelectorAll("[data-signal]")) {
      button.setAttribute("aria-pressed", String(button.dataset.signal === player.selected));
    }
    for (const view of panels[clip].querySelectorAll(".view")) {
      view.classList.toggle("selected", view.dataset.view === player.selected);
    }
    move();
    if (player.playing && !ticking) tick();
  }

  function tick() {
    ticking = player.playing;
    move();
    if (ticking) requestAnimationFrame(tick);
  }

  function move() {
    const { position, duration } = player;
    panels[clip].style.setProperty("--position", duration ? position / duration : 0);
    byId("seek").max = duration;
    byId("seek").value = position;
    byId("seek").setAttribute("aria-valuetext", clock(position));
    byId("time").textContent = `${position.toFixed(1)} / ${clock(duration)}`;
  }

  function switchButton(name, key) {
    const button = element("button", { type: "button", onclick: () => player.select(name) });
    button.dataset.signal = name;
    if (key) button.append(element("kbd", { ariaHidden: "true" }, key));
    button.append(name);
    return button;
  }

  async function choose(index) {
    clip = index;
    const { signals } = DATA.samples[clip];
    byId("clip").value = index;
    panels.forEach((panel, at) => (panel.hidden = at !== index));
    byId("signals").replaceChildren(...signals.map(({ name }, at) => switchButton(name, at < 10 ? String((at + 1) % 10) : "")));
    options(byId("first"), signals.map(({ name }) => name));
    options(byId("second"), signals.map(({ name }) => name));
    byId("second").value = Math.min(2, signals.length - 1);
    player.load(new Map(), null);
    byId("play").disabled = byId("start").disabled = true;
    const buffers = await Promise.all(signals.map(({ audio }) => decode(audio)));
    if (clip !== index) return;
    decoded = new Map(signals.map(({ name }, at) => [name, buffers[at]]));
    byId("play").disabled = byId("start").disabled = false;
    openMode();
  }

  const blind = () => byId("mode-blind").checked;

  /** What the chosen mode shows before anything is played. A blind test that was running ends. */
  function openMode() {
    x = null;
    byId("open").hidden = byId("signals").hidden = blind();
    byId("blind").hidden = !blind();
    byId("setup").hidden = !blind();
    byId("picker").hidden = false;
    byId("trial").hidden = byId("abx").hidden = true;
    byId("transport").hidden = blind();
    const { signals } = DATA.samples[clip];
    player.load(blind() ? new Map() : decoded, blind() ? null : signals[0].name);
  }

  function startBlind() {
    const { signals } = DATA.samples[clip];
    const names = [signals[byId("first").value].name, signals[byId("second").value].name];
    byId("same").hidden = names[0] !== names[1];
    if (names[0] === names[1]) return;
    if (coin()) names.reverse(); // which of the two is called A is not shown either
    right = trials = 0;
    byId("setup").hidden = byId("picker").hidden = true;
    byId("transport").hidden = byId("trial").hidden = byId("abx").hidden = false;
    trial(decoded.get(names[0]), decoded.get(names[1]));
    tally();
  }

  function trial(a, b) {
    x = coin() ? "A" : "B";
    const signals = { A: a, B: b, X: x === "A" ? a : b };
    player.load(new Map(Object.entries(signals)), "A");
  }

  function answer(guess) {
    const playing = player.playing;
    trials += 1;
    if (guess === x) right += 1;
    trial(player.buffers.get("A"), player.buffers.get("B"));
    if (playing) player.play();
    tally();
  }

  function tally() {
    const p = binomialP(right, trials);
    byId("tally").textContent = trials
      ? `${right} of ${trials} right, p = ${p < 0.001 ? p.toExponential(1) : p.toFixed(3)}`
      : "No answers yet";
  }

  const toggle = () => player.toggle();

  /** Space plays, except where it works another control; 1-9 and 0 (A, B, X in a blind test) switch. */
  function press(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
    const { target } = event;
    if (event.key === " ") {
      if (target.closest("select, summary, a, input:not(#seek), button:not([data-signal], #play)")) return;
      event.preventDefault();
      toggle();
    } else if (!target.closest("select")) {
      const names = [...player.buffers.keys()];
      const index = "1234567890".indexOf(event.key);
      player.select(blind() && index < 0 ? event.key.toUpperCase() : names[index]);
    }
  }

  options(byId("clip"), DATA.samples.map(({ title }) => title));
  byId("abx").append(...["A", "B", "X"].map((name) => switchButton(name)));
  byId("clip").addEventListener("change", (event) => choose(Number(event.target.value)));
  byId("previous").addEventListener("click", () => choose((clip + panels.length - 1) % panels.length));
  byId("next").addEventListener("click", () => choose((clip + 1) % panels.length));
  byId("play").addEventListener("click", toggle);
  byId("loop").addEventListener("change", (event) => player.setLoop(event.target.checked));
  byId("seek").addEventListener("input", (event) => player.seek(Number(event.target.value)));
  for (const mode of document.querySelectorAll("[name=mode]")) mode.addEventListener("change", openMode);
  for (const view of document.querySelectorAll(".view")) {
    view.addEventListener("click", (event) => {
      player.select(view.dataset.view);
      player.seek(((event.clientX - view.getBoundingClientRect().left) / view.clientWidth) * player.duration);
    });
  }
  byId("start").addEventListener("click", startBlind);
  byId("x-is-a").addEventListener("click", () => answer("A"));
  byId("x-is-b").addEventListener("click", () => answer("B"));
  byId("reset").addEventListener("click", openMode);
  document.addEventListener("keydown", press);
  choose(0);
}

for (const section of document.querySelectorAll("main > section:not([hidden])")) {
  byId("sections").append(element("a", { href: `#${section.id}` }, section.querySelector("h2").textContent));
}
startTables();
if (DATA.pair_shown) startPairs();
if (DATA.samples.length) startListening();
