/** A signal of any length as overlapping windows of one length, and back, as `flashsr_jax.upscale.windows` does it. */

/**
 * The windows of a signal: [{start, length, offset, output}]. `start` is the time of a window's first sample, `output`
 * how many samples are final once it is done. The samples are those of the signal from `offset` on, reflected at both
 * ends of that part.
 */
export function cut(total, { samples, context, crossfade, step }) {
  const windows = [];
  let start = -context;
  for (; start + samples <= total; start += step) {
    windows.push({ start, samples, offset: Math.max(start, 0), output: step });
  }
  const offset = Math.max(start, 0);
  let remaining = total - start - context;
  for (let more = Math.max(1, Math.ceil((remaining - crossfade) / step)); more > 0; more--) {
    windows.push({ start, samples, offset, output: more === 1 ? remaining : step });
    start += step;
    remaining -= step;
  }
  return windows;
}

/** The samples of one window of a channel. */
export function samplesOf(channel, { start, samples, offset }) {
  if (start >= 0 && start + samples <= channel.length) return channel.slice(start, start + samples);
  const length = channel.length - offset;
  const x = new Float32Array(samples);
  for (let i = 0; i < samples; i++) x[i] = channel[offset + reflected(start + i - offset, length)];
  return x;
}

/** An index that goes back and forth between 0 and length - 1, the ends once. */
export function reflected(index, length) {
  if (length === 1) return 0;
  const period = 2 * (length - 1);
  const within = ((index % period) + period) % period;
  return within < length ? within : period - within;
}

/** Puts outputs of consecutive windows together: drops their context, and fades each into the next. */
export class Joiner {
  constructor({ samples, context, crossfade, step }) {
    Object.assign(this, { samples, context, crossfade, step, tail: null });
    this.fadeIn = Float32Array.from(
      { length: crossfade },
      (_, i) => Math.sin(((Math.PI / 2) * (i + 0.5)) / crossfade) ** 2,
    );
  }

  /** The final samples, per channel, once these channels of a window are there. */
  add(channels, output) {
    const kept = channels.map((channel) => channel.slice(this.context, this.samples - this.context));
    if (this.tail) {
      kept.forEach((channel, c) => {
        for (let i = 0; i < this.crossfade; i++) {
          channel[i] = this.fadeIn[i] * channel[i] + (1 - this.fadeIn[i]) * this.tail[c][i];
        }
      });
    }
    this.tail = kept.map((channel) => channel.slice(this.step));
    return kept.map((channel) => channel.subarray(0, output));
  }
}
