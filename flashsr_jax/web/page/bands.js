/**
 * What is done to a window's bands beside the networks, as `flashsr_jax.audio.bands` does it: what the input has over
 * the end of its band is taken away before them, which ends as that of their training's inputs, a steady floor comes back
 * where there is nothing else, and under the cutoff the output is the input.
 */

import { realFFT } from "./fft.js";

const RATE = 48000;
const SPLICE = [0.8, 0.95]; // of the cutoff: where the input ends in the output, and the networks' band begins
const STEEP_SPLICE = [0.93, 0.99]; // the same where the band ends steeply
const SHOULDER = 1.02; // of the cutoff: where the low-pass has taken all while the band's shoulder holds a floor alone
const ONLY_FLOOR_DB = 4; // over a floor: where a band is it ...
const SOUND_DB = 10; // ... and where sound
const BLOCK = 1440; // samples, 30 ms, of a floor's levels
const ROUNDING = 1e-6; // of the loudest sample: what a transform and its inverse leave
const EDGES = { from: 1, to: 1.06 }; // of model.json's `lowpass`
const IMAGE = [1.05, 1.15]; // of the cutoff: where an image shows
const LACKING_DB = -8; // of the image: what a signal has there that lacks one ...
const ENOUGH_DB = -4; // ... and one that has its own
const SINC = { periods: 10, beta: 5, steps: 64, values: 1024 }; // of model.json's `image`: its filter, and of a table of it

export class Bands {
  /** cutoff: where the band ends; end: where what a filter left over it has sunk into what lies above. In Hz. */
  constructor(cutoff, end = cutoff, { from, to } = EDGES) {
    Object.assign(this, { cutoff, end, from, to, heard: new WeakMap(), masks: new Map() });
  }

  /** A channel's window as the networks get it. */
  before(x) {
    return this.cutoff < RATE / 2 ? asResampled(this.lowPassed(x), this.cutoff, this.resamplingGain(x.length)) : x;
  }

  /** x without what is over the end of its band. */
  lowPassed(x) {
    if (this.end >= RATE / 2) return x;
    const { low, floor } = this.under(x);
    if (floor === null) return low;
    const band = masked(x, this.mask(x.length, this.cutoff, 1, SHOULDER));
    const sound = soundOf(density(x, this.cutoff, this.to * this.end), floor);
    return band.map((value, i) => value + sound[i] * (low[i] - value));
  }

  /** What the networks made of it, y, with the input's own band under the cutoff, and its floor over it. */
  after(x, y) {
    const made = this.withFloor(x, y);
    const given = masked(
      x.map((value, i) => value - made[i]),
      this.splice(x),
    );
    return made.map((value, i) => value + given[i]);
  }

  /** Gain of each bin of the input in the output: the splice is the further up, the steeper the band ends. */
  splice(x) {
    const { re, im } = realFFT(x.length).forward(x);
    const end = this.mask(x.length, this.end, this.from, this.to);
    const given = [re, im].map((part) => part.map((value, k) => value * end[k]));
    const middle = Math.round((this.cutoff * x.length) / RATE);
    const steep = lacking(given, imageOf(given, middle, this.resamplingGain(x.length)), middle);
    const [gentle, far] = [SPLICE, STEEP_SPLICE].map((edges) => this.mask(x.length, this.cutoff, ...edges));
    return gentle.map((value, k) => value + steep * (far[k] - value));
  }

  /** y with the input's own floor over the cutoff while it alone is to be heard. */
  withFloor(x, y) {
    const { floor } = this.under(x);
    if (floor === null) return y;
    const reachesTheTop = steady(x, 0.45 * RATE, RATE / 2) > 0.05 * floor; // not of a lower rate
    const sound = reachesTheTop ? soundOf(density(x, 0.6 * this.cutoff, 0.9 * this.cutoff), floor) : null;
    if (!sound || sound.every((value) => value >= 1)) return y;
    const mask = this.mask(x.length, this.cutoff, 1, SHOULDER);
    const [lowX, lowY] = [masked(x, mask), masked(y, mask)];
    return y.map((value, i) => {
      const added = (Math.sqrt(sound[i]) - 1) * (value - lowY[i]);
      return value + added + Math.sqrt(1 - sound[i]) * (x[i] - lowX[i]);
    });
  }

  /** {low, floor} of a channel's window: what lies under the end, and the floor over it. Kept until `after` asks again. */
  under(x) {
    if (!this.heard.has(x)) {
      const low = masked(x, this.mask(x.length, this.end, this.from, this.to));
      this.heard.set(x, { low, floor: this.floor(x, low) });
    }
    return this.heard.get(x);
  }

  /** Mean square per Hz of the steady floor over the end; null where there is none, or no room to see it. */
  floor(x, low) {
    const rest = x.map((value, i) => value - low[i]);
    const [lowest, highest] = [this.to * this.end, Math.min(1.6 * this.end, RATE / 2)];
    if (loudest(rest) <= ROUNDING * loudest(x) || highest - lowest < 0.2 * this.end) return null;
    return steady(rest, lowest, highest);
  }

  /** `lowMask`, made once for all windows. */
  mask(samples, ...edges) {
    const key = `${samples} ${edges}`;
    if (!this.masks.has(key)) this.masks.set(key, lowMask(samples, ...edges));
    return this.masks.get(key);
  }

  /** `resamplingGain`, made once for all windows. */
  resamplingGain(samples) {
    const key = `resampling ${samples}`;
    if (!this.masks.has(key)) this.masks.set(key, resamplingGain(Math.round((this.cutoff * samples) / RATE)));
    return this.masks.get(key);
  }
}

const loudest = (x) => x.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

/** Gain of each bin: 1 up to from x cutoff, 0 from to x cutoff, a cosine between them. */
function lowMask(samples, cutoff, from, to) {
  return Float64Array.from({ length: samples / 2 + 1 }, (_, k) => {
    const position = ((k * RATE) / samples - from * cutoff) / ((to - from) * cutoff);
    return 0.5 + 0.5 * Math.cos(Math.PI * Math.min(1, Math.max(0, position)));
  });
}

/** x resampled to twice the cutoff and back by a filter of this gain, which leaves a mirror image over the cutoff; x so
 * far as it has its own. */
function asResampled(x, cutoff, gain) {
  const fft = realFFT(x.length);
  const { re, im } = fft.forward(x);
  const middle = Math.round((cutoff * x.length) / RATE);
  const image = imageOf([re, im], middle, gain);
  const missing = lacking([re, im], image, middle);
  for (let k = 0; k < re.length; k++) {
    const passed = k <= 2 * middle ? gain[k] ** 2 : 0;
    re[k] += missing * (passed * re[k] + image[0][k] - re[k]);
    im[k] += missing * (passed * im[k] + image[1][k] - im[k]);
  }
  return fft.inverse({ re, im });
}

/** The mirror image over the cutoff's bin of a spectrum [re, im], by a filter of this gain. */
function imageOf([re, im], middle, gain) {
  const last = Math.min(2 * middle, re.length - 1);
  return [re, im].map((part, sign) =>
    part.map((_, k) => {
      const from = 2 * middle - k;
      return k <= last && from <= last ? gain[k] * gain[from] * part[from] * (sign ? -1 : 1) : 0;
    }),
  );
}

/** From 0 where a spectrum has as much over the cutoff's bin as its image, to 1 where it ends steeply. */
function lacking(spectrum, image, middle) {
  const top = Math.min(2 * middle, spectrum[0].length - 1) + 1;
  const [low, high] = IMAGE.map((edge) => Math.min(Math.round(edge * middle), top));
  const energy = ([a, b]) => a.slice(low, high).reduce((sum, value, i) => sum + value ** 2 + b[low + i] ** 2, 0);
  const ratio = 10 * Math.log10(Math.max(energy(spectrum), 1e-30) / Math.max(energy(image), 1e-30));
  return Math.min(1, Math.max(0, (ENOUGH_DB - ratio) / (ENOUGH_DB - LACKING_DB)));
}

/** Gain in the bins from 0 to twice the cutoff's of a sinc of ten periods on each side under a Kaiser window. */
function resamplingGain(cutoff) {
  const taps = Float64Array.from({ length: SINC.periods * SINC.steps + 1 }, (_, n) => {
    const time = n / SINC.steps;
    const sinc = n ? Math.sin(Math.PI * time) / (Math.PI * time) : 1;
    return (n ? 2 : 1) * sinc * bessel(SINC.beta * Math.sqrt(1 - (time / SINC.periods) ** 2)); // of both sides
  });
  const sum = taps.reduce((total, tap) => total + tap);
  const table = Float64Array.from({ length: SINC.values + 1 }, (_, i) => {
    const turn = (2 * Math.PI * i) / (SINC.values * SINC.steps);
    return taps.reduce((total, tap, n) => total + tap * Math.cos(turn * n), 0) / sum;
  });
  return Float64Array.from({ length: 2 * cutoff + 1 }, (_, k) => {
    const place = (k / cutoff) * (SINC.values / 2);
    const before = Math.min(Math.floor(place), SINC.values - 1);
    return table[before] + (place - before) * (table[before + 1] - table[before]);
  });
}

/** The modified Bessel function I0, by its series. */
function bessel(x) {
  let [sum, term] = [1, 1];
  for (let k = 1; term > 1e-16 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

function masked(x, mask) {
  const fft = realFFT(x.length);
  const { re, im } = fft.forward(x);
  for (let k = 0; k < mask.length; k++) {
    re[k] *= mask[k];
    im[k] *= mask[k];
  }
  return fft.inverse({ re, im });
}

/** Mean square per Hz of a band around each sample. */
function density(x, low, high) {
  const inside = new Uint8Array(x.length / 2 + 1);
  inside.fill(1, Math.ceil((low * x.length) / RATE), Math.floor((high * x.length) / RATE) + 1);
  const squares = masked(x, inside).map((value) => (value * value) / (high - low));
  return mean(squares, BLOCK);
}

/** Mean square per Hz that a band has in its quiet moments: the fifth of them. */
function steady(x, low, high) {
  const sorted = density(x, low, high).filter((_, i) => i % BLOCK === 0).sort();
  const at = 0.2 * (sorted.length - 1);
  const [a, b] = [sorted[Math.floor(at)], sorted[Math.ceil(at)]];
  return a + (at % 1) * (b - a);
}

/** From 0 where a band of so much per Hz is a floor alone, smoothly to 1 where it is sound. */
function soundOf(level, floor) {
  const sound = level.map((value) => {
    const ratio = 10 * Math.log10(Math.max(value, 1e-30) / Math.max(floor, 1e-30));
    return Math.min(1, Math.max(0, (ratio - ONLY_FLOOR_DB) / (SOUND_DB - ONLY_FLOOR_DB)));
  });
  return mean(maximum(sound, 2 * BLOCK), BLOCK).map((value) => Math.min(1, Math.max(0, value)));
}

/** x beyond its ends, mirrored with the ends twice. */
const mirrored = (x, i) => x[i < 0 ? -1 - i : i >= x.length ? 2 * x.length - 1 - i : i];

/** The mean of `size` values, an even number, around each. */
function mean(x, size) {
  const y = new Float64Array(x.length);
  let sum = 0;
  for (let i = -size / 2; i < size / 2; i++) sum += mirrored(x, i);
  for (let i = 0; i < x.length; i++) {
    y[i] = Math.max(0, sum / size);
    sum += mirrored(x, i + size / 2) - mirrored(x, i - size / 2);
  }
  return y;
}

/** The largest of `size` values, an even number, around each; by the candidates that later ones have not outdone. */
function maximum(x, size) {
  const y = new Float64Array(x.length);
  const [values, places] = [new Float64Array(x.length + size), new Int32Array(x.length + size)]; // of candidates
  let first = 0;
  let last = -1;
  for (let i = -size / 2; i < x.length + size / 2 - 1; i++) {
    const value = mirrored(x, i);
    while (last >= first && values[last] <= value) last--;
    last++;
    values[last] = value;
    places[last] = i;
    const centre = i - size / 2 + 1;
    if (places[first] < centre - size / 2) first++;
    if (centre >= 0) y[centre] = values[first];
  }
  return y;
}
