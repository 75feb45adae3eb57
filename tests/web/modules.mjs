// Runs the page's modules on the arrays of a folder: `node modules.mjs PAGE FOLDER`. Arrays are float32, by name.
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [, , page, folder] = process.argv;
const load = (name) => import(pathToFileURL(join(page, name)).href);
const [{ Bands }, { bandwidth }, { LogMel, highestHz, resample }, { realFFT }, { anchoredNoise }, { Upscaler }, wav] = await Promise.all(
  ["bands.js", "bandwidth.js", "dsp.js", "fft.js", "noise.js", "upscale.js", "wav.js"].map(load),
);
const bufferOf = (name) => {
  const bytes = readFileSync(join(folder, name));
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
};
const read = (name) => new Float32Array(bufferOf(name));
const about = JSON.parse(readFileSync(join(folder, "model.json")));
const said = {};

function write(name, values) {
  writeFileSync(join(folder, `${name}.out`), new Uint8Array(Float32Array.from(values).buffer));
}

const { re, im } = realFFT(1680).forward(read("frame"));
write("spectrum", [...re, ...im]);
write("frame", realFFT(1680).inverse({ re, im }));
for (const { seed, index, first } of about.noises) {
  write(`noise ${seed} ${index} ${first}`, anchoredNoise(seed, index, first, 5, 12));
}
write("mel", new LogMel(about).of(read("window")));
for (const rate of about.rates) write(`from ${rate}`, await resample(read("speech"), rate, 48000));
for (const { name, cutoff, end } of about.bands) {
  const bands = new Bands(cutoff, end);
  write(`before ${name}`, bands.before(read(name)));
  write(`after ${name}`, bands.after(read(name), read("window")));
}
said.highest = about.rates.map((rate) => highestHz(rate, 48000));
said.bandwidth = about.cutoffs.map((cutoff) => bandwidth([read(`cut ${cutoff}`)], 48000));
for (const bits of [16, 24, 32]) {
  const bytes = wav.writeWav([read("frame"), read("frame").map((value) => -value)], 48000, bits);
  writeFileSync(join(folder, `wav ${bits}.wav`), new Uint8Array(bytes));
}
for (const file of readdirSync(folder).filter((name) => name.startsWith("given "))) {
  if (!file.endsWith(".wav")) said[file] = wav.rateOf(bufferOf(file));
  else {
    const { rate, channels } = wav.readWav(bufferOf(file));
    said[file] = [rate, channels.length];
    write(file, channels.flatMap((channel) => [...channel]));
  }
}

// Windows and levels alone: networks that hand the waveform on, a little turned down.
let phases;
const run = async (graph, inputs) => {
  if (graph !== "vocoder") return new Float32Array(1);
  phases ??= inputs.phase_noise;
  return inputs.waveform.data.map((value) => 0.9 * value);
};
for (const length of about.lengths) {
  const pieces = [];
  const channels = [read("speech").slice(0, length), new Float32Array(length).fill(0.25)];
  for await (const blocks of new Upscaler(about, run).upscale(channels)) pieces.push(blocks);
  write(`joined ${length}`, [0, 1].flatMap((c) => pieces.flatMap((blocks) => [...blocks[c]])));
}
write("phases", phases.data);
said.phases = phases.dims;
writeFileSync(join(folder, "said.json"), JSON.stringify(said));
