/**
 * Everything that takes time, beside the page's own thread: reading and resampling, the band's end, the pictures, the
 * networks. Messages in: open, start, cancel. Messages out: see `say`.
 */

import { Bands } from "./bands.js";
import { FULL_BAND_HZ, bandwidth } from "./bandwidth.js";
import { columns, highestHz, resample } from "./dsp.js";
import { Upscaler } from "./upscale.js";
import { readWav, writeWav } from "./wav.js";

const RATE = 48000;
const LOWEST_RATE = 4000;
const HIGHEST_RATE = 768000; // as audio/resampling.py: more is a damaged header
const WIDTH = 960; // of a picture
const HEIGHT = 256;
const MOST_THREADS = 8;
const MODEL = "model/";
const RUNTIME = new URL("runtime/", import.meta.url).href;

class Cancelled extends Error {}

let cancelled = false;
let job = 0;
let recording = null; // {rate, channels at 48 kHz}
let restored = null; // its channels, restored
const models = new Map(); // {upscaler, sessions, gone} by processor

/** A message of the work under way: the page knows by `job` those that came too late. */
const say = (kind, content = {}, transfer = []) => postMessage({ kind, job, ...content }, transfer);

/** Lets messages in, and stops what is under way where one of them said so. */
async function breathe() {
  await new Promise((resolve) => {
    setTimeout(resolve);
  });
  if (cancelled) throw new Cancelled();
}

// --------------------------------------------------------------------------------------------------------- opening

async function open({ bytes, sound }) {
  const { rate, channels } = sound ?? readWav(bytes);
  check(channels, rate);
  recording = restored = null;
  const at48k = [];
  for (const [c, channel] of channels.entries()) {
    at48k.push(
      await resample(channel, rate, RATE, async (share) => {
        say("progress", { share: (c + share) / channels.length });
        await breathe();
      }),
    );
  }
  await breathe();
  const band = bandwidth(channels, rate);
  if (band.end >= 0.49 * rate) band.end = RATE / 2; // nothing is over it that could be taken away
  recording = { rate, channels: at48k, band };
  const picture = columns(at48k, 0, at48k[0].length / WIDTH, 0, WIDTH, HEIGHT);
  say("opened", { rate, band, fullBand: FULL_BAND_HZ, channels: at48k, picture: { bytes: picture, WIDTH, HEIGHT } });
}

function check(channels, rate) {
  if (!channels[0].length) throw new Error("there is no sound in this file");
  if (rate < LOWEST_RATE) throw new Error(`its sample rate is ${rate} Hz: ${LOWEST_RATE} Hz or more are needed`);
  if (rate > HIGHEST_RATE) throw new Error(`its sample rate is ${rate} Hz, over ${HIGHEST_RATE} Hz: repair the header, or resample`);
  if (!channels.every((channel) => channel.every(Number.isFinite))) {
    throw new Error("it has samples that are not finite: repair the file");
  }
}

// ------------------------------------------------------------------------------------------------------- restoring

async function start({ cutoff, processor }) {
  const upscaler = await model(processor);
  const { channels, band, rate } = recording;
  const within = (hz) => Math.min(hz, highestHz(rate, RATE)); // the resampler's filter took what is over that
  const bands = cutoff === null ? new Bands(within(band.cutoff), within(band.end)) : new Bands(within(cutoff));
  const [length, perColumn] = [channels[0].length, channels[0].length / WIDTH];
  const output = channels.map(() => new Float32Array(length));
  let final = 0;
  let drawn = 0;
  const progress = async (share) => {
    say("progress", { share });
    await breathe();
  };
  await progress(0);
  for await (const blocks of upscaler.upscale(channels, { bands, progress })) {
    blocks.forEach((block, c) => output[c].set(block, final));
    final += blocks[0].length;
    const until = final === length ? WIDTH : Math.floor(final / perColumn) - 1;
    if (until > drawn) {
      say("drawn", { first: drawn, bytes: columns(output, 0, perColumn, drawn, until, HEIGHT) });
      drawn = until;
    }
  }
  restored = output;
  say("restored", { channels: output });
}

/** The graphs on a processor, loaded once; and once more after loading or computing ended early, or a GPU was lost. */
async function model(processor) {
  for (const [each, { gone }] of models) if (gone) await forget(each);
  if (!models.has(processor)) await load(processor);
  return models.get(processor).upscaler;
}

/** Gives back what a model holds, on a GPU its device, too. */
async function forget(processor) {
  const { sessions } = models.get(processor);
  models.delete(processor);
  for (const session of Object.values(sessions)) await session.release().catch(() => {}); // of a GPU that was lost
}

/** What `work` computes on a processor. Errors say on which, since the page knows a way on from one of them. */
async function on(processor, work) {
  try {
    return await work();
  } catch (error) {
    models.get(processor).gone = true;
    throw Object.assign(new Error(error?.message ?? String(error)), { processor }); // the runtime throws numbers, too
  }
}

async function load(processor) {
  const ort = await import(`${RUNTIME}${processor === "webgpu" ? "ort.webgpu.min.mjs" : "ort.wasm.min.mjs"}`);
  ort.env.wasm.wasmPaths = RUNTIME;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency) : 1;
  const about = await (await fetched("model.json")).json();
  const names = Object.keys(about.graphs);
  const files = new Map();
  for (const [i, name] of names.entries()) {
    files.set(name, await bytesOf(about.graphs[name].file, (share) => say("loading", { share: (i + share) / names.length })));
  }
  say("loading", { share: 1 });
  const { frames, samples } = about.window;
  const loaded = { sessions: {}, gone: true }; // until all of it is there
  models.set(processor, loaded);
  for (const name of names) {
    await breathe();
    const options = {
      executionProviders: [processor],
      freeDimensionOverrides: { batch: 1, frames, samples, latent_frames: about.latent.frames },
    };
    loaded.sessions[name] = await on(processor, () => ort.InferenceSession.create(files.get(name), options));
    files.delete(name);
  }
  loaded.upscaler = new Upscaler(about, async (graph, inputs) => {
    const tensors = Object.entries(inputs).map(([name, { data, dims }]) => [name, new ort.Tensor("float32", data, dims)]);
    const outputs = await on(processor, () => loaded.sessions[graph].run(Object.fromEntries(tensors)));
    return Object.values(outputs)[0].data;
  });
  loaded.gone = false;
  if (processor === "webgpu") watch(ort.env.webgpu.device, loaded);
}

/** A GPU is lost while nothing computes, too: in a laptop that slept, say. */
async function watch(device, loaded) {
  await device.lost;
  loaded.gone = true;
}

async function fetched(file) {
  const response = await fetch(MODEL + file);
  if (!response.ok) throw new Error(`the page's file ${MODEL}${file} is missing (${response.status})`);
  return response;
}

async function bytesOf(file, progress) {
  const response = await fetched(file);
  const total = Number(response.headers.get("Content-Length"));
  const pieces = [];
  let size = 0;
  for (let reader = response.body.getReader(), piece; !(piece = await reader.read()).done; ) {
    pieces.push(piece.value);
    size += piece.value.length;
    progress(total ? Math.min(1, size / total) : 0);
    if (cancelled) throw new Cancelled();
  }
  return new Uint8Array(await new Blob(pieces).arrayBuffer());
}

// ---------------------------------------------------------------------------------------------------------- saving

/** A wav of what was restored; integers are turned down where they would be clipped, which is said. */
function save({ bits }) {
  const peak = restored.reduce((most, x) => x.reduce((high, value) => Math.max(high, Math.abs(value)), most), 0);
  const gain = bits < 32 && peak > 1 ? 1 / peak : 1;
  const channels = gain < 1 ? restored.map((x) => x.map((value) => gain * value)) : restored;
  const bytes = writeWav(channels, RATE, bits);
  say("saved", { bytes, turnedDown: -20 * Math.log10(gain) }, [bytes]);
}

const WORDS = { open, start, save };
let last = Promise.resolve();

addEventListener("message", ({ data: { word, job: number, ...given } }) => {
  if (word === "cancel") {
    cancelled = true;
    return;
  }
  last = last.then(async () => {
    cancelled = false;
    job = number;
    try {
      await WORDS[word](given);
    } catch (error) {
      const { message, processor } = error;
      say(error instanceof Cancelled ? "cancelled" : "failed", { word, message, processor });
    }
  });
});
