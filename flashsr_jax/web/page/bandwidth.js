/**
 * Where a recording's band ends: at the deepest wall in the spectrum of its loud moments, or where it has sunk into the
 * floor of quantisation, whichever comes first. The walls are those of `flashsr_jax.audio.bandwidth`; gentle roll-offs,
 * the rests of codecs over a band that was cut before, the images of poor resamplers, and changes within a recording are
 * left to the Python package.
 */

import { realFFT } from "./fft.js";

export const FULL_BAND_HZ = 17600; // from here on there is nothing to restore: the networks know cutoffs up to 16 kHz

const BLOCK_SECONDS = 5;
const MOST_BLOCKS = 24; // of a long recording: spread over it
const QUIET_DB = 40; // blocks so far below the loudest do not tell where the others end
const SILENCE_DB = -90; // mean square of a frame under which it holds nothing
const ACTIVE_DB = 50; // frames further below the loudest do not count
const DEEP_WALL_DB = 35; // a drop from 0.9 to 1.1 of a frequency that only a filter makes ...
const WALL_DB = 20; // ... or a smaller one, ...
const FLOOR_DB = 12; // ... if what follows is no further above the lowest level up there
const EDGE_DB = 12; // the wall's edge: so far below the band before it
const QUANTISATION_DB = -114; // level per bin under which the top of the spectrum is rounding or dither
const END_DB = 5; // a low-pass's skirt ends so far above the floor it sinks into
const LEAK_HZ = 6000; // a codec's wall from here on ...
const LEAK = 1.1; // ... leaks what goes on past so much of it ...
const AT_ONCE_DB = 14; // ... and falls so deep ...
const AT_ONCE = 0.025; // ... from one so wide stretch to the next
const LEAKING_EDGE_DB = 6; // the edge of such a wall, which the leak blurs: so far below the band before it
const BLACKMAN_HARRIS = [0.35875, -0.48829, 0.14128, -0.01168]; // Harris 1978, table 1: 92 dB

/** {cutoff, end} in Hz of channels: the band's end, and where its filter's skirt ends; 0 of silence. */
export function bandwidth(channels, rate) {
  const readings = channels.flatMap((channel) => blocks(channel, rate).map((block) => readBlock(block, rate)));
  const loudest = Math.max(...readings.map(({ level }) => level));
  const counted = readings.filter(({ cutoff, level }) => cutoff > 0 && level > loudest - QUIET_DB);
  const high = (values) => values.sort((a, b) => a - b)[Math.ceil(0.8 * (values.length - 1))] ?? 0;
  return { cutoff: high(counted.map(({ cutoff }) => cutoff)), end: high(counted.map(({ end }) => end)) };
}

function blocks(x, rate) {
  const size = BLOCK_SECONDS * rate;
  const count = Math.max(1, Math.floor(x.length / size));
  const taken = Math.min(count, MOST_BLOCKS);
  return Array.from({ length: taken }, (_, i) => {
    const block = Math.floor((i * count) / taken);
    return x.subarray(block * size, block === count - 1 ? x.length : (block + 1) * size);
  });
}

function readBlock(x, rate) {
  const size = 2 ** Math.round(Math.log2(rate / 24)); // 2048 at 48 kHz
  const { level, spectra } = loudSpectra(x, size);
  if (level < SILENCE_DB) return { cutoff: 0, end: 0, level };
  const levels = quantileOfBins(spectra, 0.95);
  const least = 1e-14 * Math.max(...levels);
  const spectrum = levels.map((power) => 10 * Math.log10(power + least));
  const wall = edge(spectrum, rate);
  const leaking = leakingEdge(spectrum, wall, rate);
  const cutoff = ((leaking ?? wall) * rate) / size;
  return { cutoff, end: leaking === null ? endOf(spectrum, cutoff, rate) : cutoff, level };
}

/** The power spectra of the frames that are no further than ACTIVE_DB below the loudest, and its level in dB. */
function loudSpectra(x, size) {
  const average = x.reduce((sum, value) => sum + value, 0) / (x.length || 1);
  const padded = Float64Array.from({ length: Math.max(size, x.length) }, (_, i) => (i < x.length ? x[i] - average : 0));
  const frames = [];
  for (let start = 0; start + size <= padded.length; start += size / 4) {
    const frame = padded.subarray(start, start + size);
    frames.push({ frame, level: 10 * Math.log10(frame.reduce((sum, value) => sum + value * value, 0) / size + 1e-20) });
  }
  const level = Math.max(...frames.map((each) => each.level));
  const cosines = (i) => BLACKMAN_HARRIS.reduce((sum, a, n) => sum + a * Math.cos((2 * Math.PI * n * i) / size), 0);
  const window = Float64Array.from({ length: size }, (_, i) => cosines(i) / (size * BLACKMAN_HARRIS[0]));
  const fft = realFFT(size);
  const active = level < SILENCE_DB ? [] : frames.filter((each) => each.level > level - ACTIVE_DB);
  const spectra = active.map(({ frame }) => {
    const { re, im } = fft.forward(frame.map((value, i) => value * window[i]));
    return smoothed(Float64Array.from(re, (value, k) => value * value + im[k] * im[k]));
  });
  return { level, spectra };
}

/** The mean of five bins around each. */
function smoothed(power) {
  const at = (k) => power[Math.min(power.length - 1, Math.max(0, k))];
  return power.map((_, k) => (at(k - 2) + at(k - 1) + at(k) + at(k + 1) + at(k + 2)) / 5);
}

function quantileOfBins(spectra, share) {
  return Float64Array.from(spectra[0], (_, k) => quantile(spectra.map((spectrum) => spectrum[k]), share));
}

function quantile(values, share) {
  const sorted = Float64Array.from(values).sort();
  const at = share * (sorted.length - 1);
  const low = sorted[Math.floor(at)];
  return low + (at % 1) * (sorted[Math.ceil(at)] - low);
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** The bin at which a spectrum in dB ends. */
function edge(spectrum, rate) {
  const highest = spectrum.length - 1;
  const walls = []; // groups of neighbours: [{drop, k, before}]
  let last = null;
  places((2000 * highest) / rate, highest / 1.1).forEach((k, number) => {
    const above = spectrum.subarray(Math.ceil(1.08 * k));
    const before = mean(spectrum.subarray(Math.floor(0.8 * k), Math.floor(0.93 * k) + 1));
    const after = mean(spectrum.subarray(Math.ceil(1.08 * k), Math.ceil(1.3 * k) + 1));
    const [lowest, high] = [quantile(above, 0.25), quantile(above, 0.75)];
    const drop = before - after;
    if (before - high < WALL_DB || drop < WALL_DB || (drop < DEEP_WALL_DB && after - lowest > FLOOR_DB)) return;
    if (last !== number - 1) walls.push([]);
    walls.at(-1).push({ drop, k, before });
    last = number;
  });
  const most = (group) => Math.max(...group.map(({ drop }) => drop));
  let bin = highest;
  if (walls.length) {
    const deepest = Math.max(...walls.map(most));
    const group = walls.find((each) => most(each) >= Math.min(0.9 * deepest, DEEP_WALL_DB));
    const { k, before } = group.find(({ drop }) => drop >= 0.9 * most(group));
    const least = before - Math.min(EDGE_DB, most(group) / 2);
    bin = spectrum.subarray(0, Math.ceil(1.08 * k)).findLastIndex((level) => level >= least);
  }
  const bottom = quantile(spectrum.subarray(Math.floor(0.9 * highest)), 0.5);
  if (bottom >= QUANTISATION_DB) return bin;
  const sound = medians(spectrum, 15).findLastIndex((level) => level > bottom + 6);
  return sound >= 0 ? Math.min(bin, sound) : bin;
}

/** The bin at which the band of a codec ends that leaks over its wall's bin; null for other spectra. */
function leakingEdge(spectrum, wall, rate) {
  const hz = (wall * rate) / (2 * (spectrum.length - 1));
  const end = endOf(spectrum, hz, rate);
  if (hz < LEAK_HZ || end <= LEAK * hz || end >= rate / 2) return null;
  const width = Math.floor(AT_ONCE * wall);
  const half = Math.floor(width / 2);
  const meanAround = (k) => mean(spectrum.subarray(k - half, k - half + width));
  const apart = half + 3; // past what the window and the smoothing blur
  const near = Array.from({ length: Math.ceil(1.04 * wall) - Math.floor(0.93 * wall) }, (_, i) => Math.floor(0.93 * wall) + i);
  if (Math.max(...near.map((k) => meanAround(k - apart) - meanAround(k + apart))) < AT_ONCE_DB) return null;
  const before = mean(spectrum.subarray(Math.floor(0.8 * wall), Math.floor(0.93 * wall) + 1));
  return spectrum.subarray(0, wall + 1).findLastIndex((level) => level >= before - LEAKING_EDGE_DB);
}

/** Whole numbers at equal ratios from low to high, each once. */
function places(low, high) {
  const count = 200;
  const all = Array.from({ length: count }, (_, i) => Math.floor(low * (high / low) ** (i / (count - 1))));
  return [...new Set(all)];
}

function medians(x, size) {
  const at = (k) => x[Math.min(x.length - 1, Math.max(0, k))];
  return x.map((_, k) => quantile(Array.from({ length: size }, (_, i) => at(k + i - (size - 1) / 2)), 0.5));
}

/** Where in Hz what is left over a cutoff has sunk into what lies above it; half the rate if nothing does. */
function endOf(spectrum, cutoff, rate) {
  const binsPerHz = (2 * (spectrum.length - 1)) / rate;
  const first = Math.ceil(cutoff * binsPerHz);
  const above = spectrum.subarray(Math.ceil(1.3 * first));
  if (above.length < 8) return rate / 2;
  const limit = quantile(above, 0.5) + END_DB;
  const sunk = medians(spectrum.subarray(first), 5).findIndex((level) => level <= limit);
  return Math.min((first + Math.max(0, sunk)) / binsPerHz, rate / 2);
}
