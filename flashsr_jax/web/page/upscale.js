/** Upscaling by the graphs of `flashsr weights export --to onnx`, as model.json says; `exchange/graphs/run.py` in JavaScript. */

import { LogMel } from "./dsp.js";
import { anchoredNoise } from "./noise.js";
import { Joiner, cut, samplesOf } from "./windows.js";

export class Upscaler {
  /**
   * about: what stands in model.json. run(graph, inputs): the output of a graph for inputs by name, as a promise of a
   * Float32Array; an input is {data, dims}.
   */
  constructor(about, run) {
    Object.assign(this, { about, run, logMel: new LogMel(about) });
  }

  /**
   * Super-resolves channels at 48 kHz, window by window: yields their samples as they become final. bands: what is
   * done to the input beside the networks, or null. progress(share) is awaited between graphs, and may throw to stop.
   */
  async *upscale(channels, { bands = null, seed = 0, progress = () => {} } = {}) {
    const windows = cut(channels[0].length, this.about.window);
    const joiner = new Joiner(this.about.window);
    const parts = 3 * channels.length * windows.length; // three graphs
    let done = 0;
    const step = () => progress(++done / parts);
    for (const window of windows) {
      const input = channels.map((channel) => samplesOf(channel, window));
      const output = await this.window(input, window.start / this.about.latent.hop, { bands, seed, step });
      yield joiner.add(output, window.output);
    }
  }

  /** One window's channels, which begins at latent frame `frame` of absolute time. */
  async window(input, frame, { bands, seed, step }) {
    const { latent, noise } = this.about;
    const heard = bands ? input.map((x) => bands.before(x)) : input;
    const means = heard.map((x) => x.reduce((sum, value) => sum + value, 0) / x.length);
    const levels = heard.map((x, c) => x.reduce((most, value) => Math.max(most, Math.abs(value - means[c])), 0));
    const peak = Math.max(...levels) + 1e-8;
    const frames = input[0].length / latent.hop;
    const dims = [1, frames, latent.bins, latent.channels];
    const size = latent.bins * latent.channels;
    const drawn = (i, values, of) => ({ data: anchoredNoise(seed, i, frame, frames, values), dims: of });
    const noises = { encoder: Object.fromEntries(noise.inputs.map((name, i) => [name, drawn(i, size, dims)])), vocoder: {} };
    if (noise.phases) {
      const { input: name, index, values } = noise.phases;
      noises.vocoder[name] = drawn(index, values, [1, frames, values]);
    }
    const output = [];
    for (const [c, x] of heard.entries()) {
      const waveform = x.map((value) => (0.5 * (value - means[c])) / peak);
      const y = (await this.restored(waveform, dims, noises, step)).map((value) => 2 * peak * value + means[c]);
      output.push(levels[c] > 0 ? (bands ? bands.after(input[c], y) : y) : x.fill(means[c]));
    }
    return output;
  }

  /** The networks on one normalised channel. */
  async restored(waveform, dims, noises, step) {
    const wave = { data: waveform, dims: [1, waveform.length] };
    const mel = { data: this.logMel.of(waveform), dims: [1, waveform.length / this.about.hop, this.logMel.bins] };
    const front = "waveform" in this.about.graphs.encoder.inputs ? { waveform: wave } : { mel };
    const latent = await this.run("encoder", { ...front, ...noises.encoder });
    await step();
    const restored = await this.run("decoder", { latent: { data: latent, dims } });
    await step();
    const given = { mel: { ...mel, data: restored }, waveform: wave, ...noises.vocoder };
    const taken = Object.keys(this.about.graphs.vocoder.inputs).map((name) => [name, given[name]]);
    const y = await this.run("vocoder", Object.fromEntries(taken));
    await step();
    return y;
  }
}
