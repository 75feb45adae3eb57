/** Listening without a gap at the switch: of the report's page, which has this file inside, and of `flashsr web`. */

const SAMPLE_RATE = 48000;
const LEAD = 0.02; // s; changes of gain are set this far ahead: what is being rendered already would jump
const FADE = 0.005; // s, of a switch from one signal to another

/** Plays signals of one length in step, all at once, and lets one of them be heard; `loop`: again and again. */
export class Player {
  constructor(onchange, loop = false) {
    this.onchange = onchange;
    this.context = null; // browsers let it start only once the user has done something
    this.buffers = new Map();
    this.voices = null;
    this.selected = null;
    this.loop = loop;
    this.offset = 0; // s, position at `startedAt`, or while nothing plays
    this.startedAt = 0;
  }

  get playing() {
    return this.voices !== null;
  }

  get duration() {
    return this.buffers.values().next().value?.duration ?? 0;
  }

  get position() {
    if (!this.playing) return this.offset;
    const position = this.offset + Math.max(0, this.context.currentTime - this.startedAt);
    return this.loop ? position % this.duration : Math.min(position, this.duration);
  }

  /** Other signals, AudioBuffers by name, in place of the present ones: stopped at the start, or going on elsewhere. */
  load(buffers, selected, position = 0) {
    const playing = this.playing;
    this.pause();
    this.buffers = buffers;
    this.selected = selected;
    this.offset = position;
    if (playing && position) this.play();
    this.onchange();
  }

  play() {
    if (this.playing || this.duration === 0) return;
    if (this.context === null) {
      this.context = new AudioContext({ sampleRate: SAMPLE_RATE });
      this.output = this.context.createGain();
      this.output.connect(this.context.destination);
    }
    this.context.resume();
    if (this.offset >= this.duration) this.offset = 0;
    this.startedAt = this.context.currentTime + LEAD;
    const voices = new Map();
    for (const [name, buffer] of this.buffers) {
      const source = new AudioBufferSourceNode(this.context, { buffer, loop: this.loop });
      const gain = new GainNode(this.context, { gain: 0 });
      source.connect(gain).connect(this.output);
      source.start(this.startedAt, this.offset);
      voices.set(name, { source, gain });
    }
    voices.values().next().value.source.onended = () => {
      if (this.voices === voices) this.finish();
    };
    this.voices = voices;
    this.fade();
    this.onchange();
  }

  finish() {
    this.voices = null;
    this.offset = 0;
    this.onchange();
  }

  pause() {
    if (!this.playing) return;
    this.offset = this.position;
    const now = this.context.currentTime;
    for (const { source, gain } of this.voices.values()) {
      gain.gain.setTargetAtTime(0, now + LEAD, FADE / 3);
      source.stop(now + LEAD + 4 * FADE);
    }
    this.voices = null;
    this.onchange();
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  seek(position) {
    const playing = this.playing;
    this.pause();
    this.offset = Math.min(Math.max(position, 0), this.duration);
    if (playing) this.play();
    this.onchange();
  }

  select(name) {
    if (!this.buffers.has(name)) return;
    this.selected = name;
    if (this.playing) this.fade();
    this.onchange();
  }

  setLoop(loop) {
    if (this.playing) {
      this.offset = this.position;
      this.startedAt = Math.max(this.startedAt, this.context.currentTime);
      for (const { source } of this.voices.values()) source.loop = loop;
    }
    this.loop = loop;
    this.onchange();
  }

  /** The gains sum to one all through, so that no switch is silent; and they start from where they are: no clicks. */
  fade() {
    const start = Math.max(this.context.currentTime + LEAD, this.startedAt);
    for (const [name, { gain }] of this.voices) {
      gain.gain.setTargetAtTime(name === this.selected ? 1 : 0, start, FADE / 3);
    }
  }
}
