/** The page: the file, the settings, progress, both signals to see and to hear. The worker computes. */

import { Player } from "./player.js";
import { isWav, rateOf } from "./wav.js";

const RATE = 48000;
const MOST_BYTES = 2 ** 31 - 1; // of a file that browsers read as one piece
const ONE_THREAD = "One thread computes, since this page is not isolated: its server sends no COOP and COEP headers.";
const SOFTWARE = "This browser computes WebGPU in software: that takes many times as long as the CPU.";
const GPU_FAILED = "the GPU stopped before the recording was restored. The CPU is chosen now: press Restore.";
const byId = (id) => document.getElementById(id);

const worker = new Worker("worker.js", { type: "module" });
const player = new Player(show);
const state = { job: 0, busy: null, name: "", opened: null, began: 0, picture: null, software: false };
window.flashsr = { player, state, buffers }; // for tests, which listen to its output

const tell = (word, content = {}, transfer = []) => worker.postMessage({ word, job: state.job, ...content }, transfer);
const khz = (hz) => `${(hz / 1000).toFixed(hz % 1000 ? 1 : 0)} kHz`;
const clock = (seconds) => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;

// ---------------------------------------------------------------------------------------------------------- a file

async function open(file) {
  player.load(new Map(), null);
  problem(null);
  if (state.busy) tell("cancel");
  state.name = file.name;
  state.opened = null;
  busy("open");
  document.body.classList.add("opened");
  byId("listen").hidden = byId("saving").hidden = true;
  byId("work").hidden = false;
  byId("name").textContent = file.name;
  byId("facts").textContent = "";
  say(`Reading ${file.name}`);
  try {
    if (file.size > MOST_BYTES) throw new Error("it is larger than 2 GB, which a page cannot read");
    const bytes = await file.arrayBuffer();
    if (isWav(bytes)) tell("open", { bytes }, [bytes]);
    else tell("open", { sound: await decoded(bytes) });
  } catch (error) {
    if (state.name === file.name) failed({ word: "open", message: error.message });
  }
}

/** What the browser reads of another file than a wav, at the file's own rate where its header says one. */
async function decoded(bytes) {
  const rate = rateOf(bytes) ?? RATE;
  const supported = rate >= 8000 && rate <= 96000; // that of any browser
  try {
    const buffer = await new OfflineAudioContext(1, 1, supported ? rate : RATE).decodeAudioData(bytes);
    const channels = Array.from({ length: buffer.numberOfChannels }, (_, c) => buffer.getChannelData(c));
    return { rate: buffer.sampleRate, channels };
  } catch {
    throw new Error("this browser cannot read it as sound");
  }
}

function opened({ rate, band, fullBand, channels, picture }) {
  state.opened = { rate, band, fullBand, channels };
  state.picture = picture;
  busy(null);
  const seconds = channels[0].length / RATE;
  const layout = { 1: "mono", 2: "stereo" }[channels.length] ?? `${channels.length} channels`;
  byId("facts").textContent = `${clock(seconds)}, ${layout}, ${khz(rate)} sampling`;
  const measured = band.cutoff ? `${khz(Math.round(band.cutoff / 100) * 100)}, measured` : "nowhere: it is silent";
  byId("cutoff").options[0].textContent = measured;
  byId("cutoff").value = "auto";
  byId("listen").hidden = false;
  byId("empty").hidden = false;
  player.load(buffers({ before: channels }), "before");
  clear("after");
  draw("before", 0, picture.bytes);
  settings();
  say(`${state.name} is ready: its band ends at ${measured}`);
  byId("start").focus({ preventScroll: true });
}

// -------------------------------------------------------------------------------------------------------- settings

/** The chosen end of the band in Hz; null: as measured. NaN where the field holds no frequency. */
function chosenCutoff() {
  const { value } = byId("cutoff");
  if (value === "auto") return null;
  if (value !== "other") return Number(value);
  return byId("hertz").value && byId("hertz").checkValidity() ? Number(byId("hertz").value) : NaN;
}

function settings() {
  if (!state.opened) return;
  const { band, fullBand } = state.opened;
  byId("hertz-label").hidden = byId("cutoff").value !== "other";
  const cutoff = chosenCutoff();
  const nothing = cutoff === null && (band.cutoff === 0 || band.cutoff >= fullBand);
  let hint = "";
  if (Number.isNaN(cutoff)) hint = "Give a frequency from 500 to 23999 Hz.";
  else if (nothing && !band.cutoff) hint = "This recording is silent: there is nothing to restore.";
  else if (nothing) hint = `This recording reaches ${khz(Math.round(band.cutoff / 100) * 100)} already: there is nothing to restore. If it only seems so, say where its band ends.`;
  byId("start").disabled = Boolean(hint) || Boolean(state.busy);
  if (!hint && state.software && byId("processor").value === "webgpu") hint = SOFTWARE;
  byId("hint").textContent = hint;
  byId("hint").hidden = !hint;
  const shown = cutoff === null || Number.isNaN(cutoff) ? band.cutoff : cutoff;
  for (const line of document.querySelectorAll(".cutoff")) {
    line.hidden = !(shown > 0 && shown < RATE / 2);
    line.style.bottom = `${(200 * shown) / RATE}%`;
  }
}

async function chooseProcessor() {
  problem(null);
  if (byId("processor").value === "webgpu") {
    const adapter = await navigator.gpu.requestAdapter();
    state.software = Boolean(adapter?.info?.isFallbackAdapter);
    if (!adapter) {
      byId("processor").value = "wasm";
      problem("This browser finds no GPU that pages may use: the CPU computes.");
    }
  }
  settings();
}

// --------------------------------------------------------------------------------------------------------- working

function start() {
  problem(null);
  byId("saving").hidden = true;
  byId("empty").hidden = true;
  player.load(buffers({ before: state.opened.channels }), "before", player.position);
  clear("after");
  busy("start");
  say("Restoring");
  byId("cancel").focus({ preventScroll: true });
  tell("start", { cutoff: chosenCutoff(), processor: byId("processor").value });
}

function cancel() {
  if (!state.busy) return;
  tell("cancel");
  byId("left").textContent = "Cancelling …";
  byId("cancel").disabled = true;
}

/** What is under way: "open", "start", or null. */
function busy(word) {
  state.busy = word;
  state.began = 0;
  if (word) state.job += 1;
  byId("running").hidden = !word;
  byId("settings").hidden = !state.opened;
  byId("cancel").disabled = false;
  for (const control of byId("settings").querySelectorAll("select, input, button")) control.disabled = Boolean(word);
  byId("progress").removeAttribute("value");
  byId("left").textContent = { open: "Reading …", start: "Loading the model …" }[word] ?? "";
  settings();
}

function progress({ share }) {
  if (!state.busy || byId("cancel").disabled) return;
  const now = performance.now();
  state.began ||= now;
  byId("progress").value = share;
  if (state.busy !== "start") return;
  byId("left").textContent = share ? timeLeft(((now - state.began) / 1000) * (1 / share - 1)) : "Restoring …";
}

function timeLeft(seconds) {
  if (seconds >= 90) return `about ${Math.round(seconds / 60)} minutes left`;
  return `about ${Math.max(1, Math.round(seconds))} s left`;
}

function loading({ share }) {
  byId("progress").value = share;
  byId("left").textContent = share < 1 ? "Loading the model …" : "Preparing the model …";
  if (share >= 1) {
    byId("progress").removeAttribute("value");
    state.began = 0;
  }
}

function restored({ channels }) {
  busy(null);
  player.load(buffers({ before: state.opened.channels, after: channels }), "after", player.position);
  byId("saving").hidden = false;
  byId("turned-down").textContent = "";
  say("Restored: listen, compare, download");
  byId("play").focus({ preventScroll: true });
}

function cancelled({ word }) {
  busy(null);
  ended(word);
  say("Cancelled");
}

function failed({ word, message, processor }) {
  busy(null);
  if (processor === "webgpu") {
    console.warn(message); // for those who look for the reason
    byId("processor").value = "wasm";
    settings();
  }
  ended(word);
  problem(`${state.name}: ${processor === "webgpu" ? GPU_FAILED : message}`);
}

/** Back to before what was under way. */
function ended(word) {
  if (word === "open") close();
  if (word !== "start") return;
  clear("after");
  byId("empty").hidden = false;
  byId("start").focus({ preventScroll: true });
}

/** Back to where no file was chosen. */
function close() {
  document.body.classList.remove("opened");
  byId("work").hidden = byId("listen").hidden = true;
  byId("file").focus({ preventScroll: true });
}

function problem(text) {
  byId("problem").hidden = !text;
  byId("problem").textContent = text ?? "";
}

/** For those who hear the page. */
function say(text) {
  byId("status").textContent = text;
}

function saved({ bytes, turnedDown }) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bytes], { type: "audio/wav" }));
  link.download = `${state.name.replace(/\.[^.]*$/, "")}-48k.wav`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  const down = turnedDown > 0 ? `turned down by ${turnedDown.toFixed(1)} dB, so that no peak is cut` : "";
  byId("turned-down").textContent = down && `${link.download} is ${down}`;
}

// -------------------------------------------------------------------------------------------------------- pictures

// Magma of matplotlib, at every eighth of its way.
const STOPS = [[0, 0, 4], [28, 16, 68], [79, 18, 123], [129, 37, 129], [181, 54, 122], [229, 80, 100], [251, 135, 97], [254, 194, 135], [252, 253, 191]];
const COLOURS = Array.from({ length: 256 }, (_, level) => {
  const place = (level / 255) * (STOPS.length - 1);
  const [low, high] = [STOPS[Math.floor(place)], STOPS[Math.ceil(place)]];
  return low.map((value, i) => value + (place % 1) * (high[i] - value));
});

const canvasOf = (name) => document.querySelector(`[data-view=${name}] canvas`);

function clear(name) {
  const canvas = canvasOf(name);
  canvas.width = state.picture.WIDTH; // which empties it, too
  canvas.height = state.picture.HEIGHT;
}

/** Columns of a spectrogram, from the column `first` on. */
function draw(name, first, bytes) {
  const { WIDTH, HEIGHT } = state.picture;
  if (name === "before") clear(name);
  const count = Math.min(bytes.length / HEIGHT, WIDTH - first);
  const image = new ImageData(count, HEIGHT);
  for (let column = 0; column < count; column++) {
    for (let row = 0; row < HEIGHT; row++) {
      const at = 4 * ((HEIGHT - 1 - row) * count + column);
      image.data.set(COLOURS[bytes[column * HEIGHT + row]], at);
      image.data[at + 3] = 255;
    }
  }
  canvasOf(name).getContext("2d").putImageData(image, first, 0);
}

// -------------------------------------------------------------------------------------------------------- listening

let ticking = false;

function show() {
  byId("play").textContent = player.playing ? "Pause" : "Play";
  for (const button of document.querySelectorAll("[data-signal]")) {
    button.setAttribute("aria-pressed", String(button.dataset.signal === player.selected));
    button.disabled = !player.buffers.has(button.dataset.signal);
  }
  for (const view of document.querySelectorAll(".view")) {
    view.classList.toggle("selected", player.buffers.size > 1 && view.dataset.view === player.selected);
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
  for (const line of document.querySelectorAll(".playhead")) line.style.left = `${duration ? (100 * position) / duration : 0}%`;
  byId("seek").max = duration;
  byId("seek").value = position;
  byId("seek").setAttribute("aria-valuetext", clock(position));
  byId("time").textContent = `${clock(position)} / ${clock(duration)}`;
}

/** Space plays, except where it works another control; 1 and 2 switch; Escape cancels. */
function press(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  if (event.key === "Escape") cancel();
  else if (event.key === " ") {
    if (byId("listen").hidden || event.target.closest("select, a, input:not(#seek), button:not([data-signal], #play)")) return;
    event.preventDefault();
    player.toggle();
  } else if (!event.target.closest("select, input[type=number]")) {
    player.select({ 1: "before", 2: "after" }[event.key]);
  }
}

// ---------------------------------------------------------------------------------------------------------- wiring

const REPORTS = { opened, progress, loading, restored, cancelled, failed, saved };
worker.addEventListener("message", ({ data: { kind, job, ...content } }) => {
  if (job !== state.job) return; // of what was cancelled for another file
  if (kind === "drawn") draw("after", content.first, content.bytes);
  else REPORTS[kind](content);
});
worker.addEventListener("error", () => problem("the page's own files are incomplete: load it again"));

byId("file").addEventListener("change", ({ target }) => {
  if (target.files.length) open(target.files[0]);
  target.value = ""; // so that the same file can be chosen again
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  if (event.dataTransfer.files.length) open(event.dataTransfer.files[0]);
});
byId("cutoff").addEventListener("change", settings);
byId("hertz").addEventListener("input", settings);
byId("processor").addEventListener("change", chooseProcessor);
byId("start").addEventListener("click", start);
byId("cancel").addEventListener("click", cancel);
byId("play").addEventListener("click", () => player.toggle());
byId("seek").addEventListener("input", ({ target }) => player.seek(Number(target.value)));
byId("save").addEventListener("click", () => tell("save", { bits: Number(byId("bits").value) }));
for (const button of document.querySelectorAll("[data-signal]")) {
  button.addEventListener("click", () => player.select(button.dataset.signal));
}
for (const view of document.querySelectorAll(".view")) {
  view.addEventListener("click", (event) => {
    player.select(view.dataset.view);
    player.seek(((event.clientX - view.getBoundingClientRect().left) / view.clientWidth) * player.duration);
  });
}
document.addEventListener("keydown", press);
byId("processor-label").hidden = !navigator.gpu;
byId("machine").textContent = crossOriginIsolated ? "" : ONE_THREAD;

/** Signals by name, each an array of channels at 48 kHz, as the player takes them. */
function buffers(signals) {
  return new Map(Object.entries(signals).map(([name, channels]) => [name, bufferOf(channels)]));
}

function bufferOf(channels) {
  const buffer = new AudioBuffer({ length: channels[0].length, numberOfChannels: channels.length, sampleRate: RATE });
  channels.forEach((channel, c) => buffer.copyToChannel(channel, c));
  return buffer;
}
