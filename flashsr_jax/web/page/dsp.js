/** Resampling, the log-mel front end, and the pictures' spectra. */

import { realFFT } from "./fft.js";
import { reflected } from "./windows.js";

export const hann = (size) => Float64Array.from({ length: size }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / size));

// ------------------------------------------------------------------------------------------------------ resampling

// A sinc under Kaiser's window, in samples of the lower rate and shares of its half: the filter of soxr's best quality.
const CUTOFF = 0.955664;
const REACH = 132.8333;
const KAISER = 18.4335;
const HIGHEST = 0.96; // where it has taken 10 dB
const MOST_PHASES = 512; // of the filter between two samples; what lies between them is interpolated, 106 dB below
const PIECE = 1 << 16; // samples of output between two looks at the progress

/** A channel at another rate: round(length x to / from) samples, without offset. `progress(share)` may be awaited. */
export async function resample(x, from, to, progress = () => {}) {
  if (from === to) return x;
  const divisor = gcd(from, to);
  const [step, places] = [from / divisor, to / divisor]; // output i lies at i step / places
  const phases = Math.min(places, MOST_PHASES);
  const band = Math.min(1, to / from);
  const reach = Math.ceil(REACH / band);
  const taps = kernel(reach, band, phases);
  const y = new Float32Array(Math.round((x.length * to) / from));
  for (let i = 0; i < y.length; i++) {
    if (i % PIECE === 0) await progress(i / y.length);
    const before = Math.floor((i * step) / places);
    const place = (((i * step) % places) * phases) / places;
    const phase = Math.floor(place);
    const first = Math.max(before - reach + 1, 0);
    const last = Math.min(before + reach, x.length - 1);
    const at = phase * 2 * reach + reach - 1 - before;
    let sum = 0;
    for (let j = first; j <= last; j++) sum += x[j] * taps[at + j];
    if (place !== phase) {
      let next = 0;
      for (let j = first; j <= last; j++) next += x[j] * taps[at + 2 * reach + j];
      sum += (place - phase) * (next - sum);
    }
    y[i] = sum;
  }
  return y;
}

/** How high in Hz a recording of a rate reaches at another one. */
export const highestHz = (from, to) => (from < to ? (HIGHEST * from) / 2 : to / 2);

const gcd = (a, b) => (b ? gcd(b, a % b) : a);

/** (phases + 1, 2 reach) taps: the weights of the samples around each place between two of them. */
function kernel(reach, band, phases) {
  const taps = new Float64Array((phases + 1) * 2 * reach);
  const scale = bessel0(KAISER);
  for (let phase = 0; phase <= phases; phase++) {
    for (let j = 0; j < 2 * reach; j++) {
      const distance = band * (j - reach + 1 - phase / phases);
      const inside = 1 - (distance / REACH) ** 2;
      if (inside <= 0) continue;
      const angle = Math.PI * CUTOFF * distance;
      const sinc = angle === 0 ? 1 : Math.sin(angle) / angle;
      taps[phase * 2 * reach + j] = (band * CUTOFF * sinc * bessel0(KAISER * Math.sqrt(inside))) / scale;
    }
  }
  return taps;
}

/** Modified Bessel function of the first kind, order 0, by its series. */
function bessel0(x) {
  let sum = 1;
  for (let k = 1, term = 1; term > 1e-12 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

// --------------------------------------------------------------------------------------------------------- log-mel

const hzToMel = (hz) => (hz < 1000 ? (3 * hz) / 200 : 15 + (27 * Math.log(hz / 1000)) / Math.log(6.4));
const melToHz = (mel) => (mel < 15 ? (200 * mel) / 3 : 1000 * Math.exp((Math.log(6.4) / 27) * (mel - 15)));

/** The front end that model.json describes under `mel`. */
export class LogMel {
  constructor({ sample_rate: rate, hop, mel }) {
    Object.assign(this, { hop, size: mel.n_fft, pad: mel.pad, bins: mel.bins, floor: mel.floor });
    this.window = hann(mel.n_fft);
    const [low, high] = [hzToMel(mel.fmin_hz), hzToMel(mel.fmax_hz)];
    const edges = Array.from({ length: mel.bins + 2 }, (_, i) => melToHz(low + ((high - low) * i) / (mel.bins + 1)));
    this.filters = Array.from({ length: mel.bins }, (_, i) => triangle(...edges.slice(i, i + 3), rate / mel.n_fft));
  }

  /** (frames, bins) of a channel's normalised window. */
  of(x) {
    const frames = x.length / this.hop;
    const fft = realFFT(this.size);
    const frame = new Float64Array(this.size);
    const magnitude = new Float64Array(fft.bins);
    const mel = new Float32Array(frames * this.bins);
    for (let t = 0; t < frames; t++) {
      for (let i = 0; i < this.size; i++) {
        const at = t * this.hop + i - this.pad;
        frame[i] = this.window[i] * x[at >= 0 && at < x.length ? at : reflected(at, x.length)];
      }
      const { re, im } = fft.forward(frame);
      for (let k = 0; k < magnitude.length; k++) magnitude[k] = Math.sqrt(re[k] * re[k] + im[k] * im[k]);
      this.filters.forEach(({ first, weights }, bin) => {
        let sum = 0;
        for (let k = 0; k < weights.length; k++) sum += weights[k] * magnitude[first + k];
        mel[t * this.bins + bin] = Math.log(Math.max(sum, this.floor));
      });
    }
    return mel;
  }
}

/** A triangle of area 1 in Hz over a spectrum's bins: {first, weights}. */
function triangle(low, middle, high, hzPerBin) {
  const first = Math.ceil(low / hzPerBin);
  const weights = [];
  for (let k = first; k * hzPerBin < high; k++) {
    const hz = k * hzPerBin;
    weights.push((Math.min((hz - low) / (middle - low), (high - hz) / (high - middle)) * 2) / (high - low));
  }
  return { first, weights };
}

// -------------------------------------------------------------------------------------------------------- pictures

const PICTURE_SIZE = 1024;
const FRAMES_PER_COLUMN = 4; // of a long signal: as many as are looked at, spread over the column
const DARKEST_DB = -110;
const BRIGHTEST_DB = -20; // of a sine's full scale

/**
 * Columns of a spectrogram, a byte for each of `rows` bands from 0 Hz up to half the rate, 255 the brightest: those of
 * the samples from `start` on of a picture in which each column is `perColumn` samples (not always whole) long.
 */
export function columns(channels, start, perColumn, first, last, rows) {
  const fft = realFFT(PICTURE_SIZE);
  const window = hann(PICTURE_SIZE);
  const gain = (2 / PICTURE_SIZE) ** 2 * 4;
  const bytes = new Uint8Array((last - first) * rows);
  const frame = new Float64Array(PICTURE_SIZE);
  const length = channels[0].length;
  const frames = Math.max(1, Math.min(FRAMES_PER_COLUMN, Math.round((2 * perColumn) / PICTURE_SIZE)));
  for (let column = first; column < last; column++) {
    const power = new Float64Array(rows);
    for (let each = 0; each < frames; each++) {
      const centre = Math.round((column + (each + 0.5) / frames) * perColumn) - start;
      for (let i = 0; i < PICTURE_SIZE; i++) {
        const at = centre + i - PICTURE_SIZE / 2;
        let sum = 0;
        if (at >= 0 && at < length) for (const channel of channels) sum += channel[at];
        frame[i] = (window[i] * sum) / channels.length;
      }
      const { re, im } = fft.forward(frame);
      for (let row = 0; row < rows; row++) {
        const [a, b] = [Math.floor((row * fft.bins) / rows), Math.max(Math.ceil(((row + 1) * fft.bins) / rows), 1)];
        let loudest = 0;
        for (let k = a; k < b; k++) loudest = Math.max(loudest, re[k] * re[k] + im[k] * im[k]);
        power[row] += (gain * loudest) / frames;
      }
    }
    for (let row = 0; row < rows; row++) {
      const level = (10 * Math.log10(power[row] + 1e-20) - DARKEST_DB) / (BRIGHTEST_DB - DARKEST_DB);
      bytes[(column - first) * rows + row] = 255 * Math.min(1, Math.max(0, level));
    }
  }
  return bytes;
}
