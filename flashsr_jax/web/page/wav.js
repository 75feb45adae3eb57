/** Wav files in and out, and what other audio files say of their rate. */

const PCM = 1;
const FLOAT = 3;
const EXTENSIBLE = 0xfffe;

const text = (view, at, length) => String.fromCharCode(...new Uint8Array(view.buffer, view.byteOffset + at, length));

export const isWav = (bytes) => /^(RIFF|RF64)....WAVE/s.test(text(new DataView(bytes), 0, Math.min(12, bytes.byteLength)));

/** {rate, channels: [Float32Array]} of a wav of PCM or floats. Throws an Error that says what is wrong with it. */
export function readWav(bytes) {
  const view = new DataView(bytes);
  let format = null;
  for (let at = 12; at + 8 <= view.byteLength; ) {
    const [name, size] = [text(view, at, 4), view.getUint32(at + 4, true)];
    if (name === "fmt ") format = readFormat(view, at + 8);
    if (name === "data") {
      if (!format) break;
      const there = view.byteLength - at - 8; // a stream's header, and that of RF64, do not know the size
      return { rate: format.rate, channels: readSamples(view, at + 8, Math.min(size, there), format) };
    }
    at += 8 + size + (size % 2);
  }
  throw new Error("this wav file has no sound in it");
}

function readFormat(view, at) {
  let tag = view.getUint16(at, true);
  if (tag === EXTENSIBLE) tag = view.getUint16(at + 24, true);
  const [channels, rate, bits] = [view.getUint16(at + 2, true), view.getUint32(at + 4, true), view.getUint16(at + 14, true)];
  const known = (tag === PCM && [8, 16, 24, 32].includes(bits)) || (tag === FLOAT && [32, 64].includes(bits));
  if (!known || !channels || !rate) throw new Error("this kind of wav file (neither PCM nor floats) is not read here");
  return { tag, channels, rate, bits };
}

function readSamples(view, start, size, { tag, channels: count, bits }) {
  const bytes = bits / 8;
  const frames = Math.floor(size / (bytes * count));
  const read = {
    [`${PCM} 8`]: (at) => (view.getUint8(at) - 128) / 2 ** 7,
    [`${PCM} 16`]: (at) => view.getInt16(at, true) / 2 ** 15,
    [`${PCM} 24`]: (at) => ((view.getInt16(at + 1, true) << 8) | view.getUint8(at)) / 2 ** 23,
    [`${PCM} 32`]: (at) => view.getInt32(at, true) / 2 ** 31,
    [`${FLOAT} 32`]: (at) => view.getFloat32(at, true),
    [`${FLOAT} 64`]: (at) => view.getFloat64(at, true),
  }[`${tag} ${bits}`];
  return Array.from({ length: count }, (_, c) => {
    const channel = new Float32Array(frames);
    for (let i = 0; i < frames; i++) channel[i] = read(start + (i * count + c) * bytes);
    return channel;
  });
}

/** The bytes of a wav of channels: `bits` 16 or 24 of PCM, or 32 of floats. */
export function writeWav(channels, rate, bits) {
  const [count, frames, bytes] = [channels.length, channels[0].length, bits / 8];
  const size = frames * count * bytes;
  const view = new DataView(new ArrayBuffer(44 + size + (size % 2)));
  const put = (at, name) => [...name].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  put(0, "RIFF");
  view.setUint32(4, view.byteLength - 8, true);
  put(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, bits === 32 ? FLOAT : PCM, true);
  view.setUint16(22, count, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, rate * count * bytes, true);
  view.setUint16(32, count * bytes, true);
  view.setUint16(34, bits, true);
  put(36, "data");
  view.setUint32(40, size, true);
  const largest = 2 ** (bits - 1) - 1;
  const whole = (value) => Math.max(-largest - 1, Math.min(largest, Math.round(value * (largest + 1))));
  const write = {
    16: (at, value) => view.setInt16(at, whole(value), true),
    24: (at, value) => {
      view.setInt16(at + 1, whole(value) >> 8, true);
      view.setUint8(at, whole(value) & 255);
    },
    32: (at, value) => view.setFloat32(at, value, true),
  }[bits];
  channels.forEach((channel, c) => {
    for (let i = 0; i < frames; i++) write(44 + (i * count + c) * bytes, channel[i]);
  });
  return view.buffer;
}

const MPEG_RATES = [44100, 48000, 32000];

/** The sample rate that a flac, ogg (Vorbis, Opus) or mp3 file says it has; null where it does not say. */
export function rateOf(bytes) {
  const view = new DataView(bytes, 0, Math.min(bytes.byteLength, 1 << 16));
  const begins = (at, name) => at + name.length <= view.byteLength && text(view, at, name.length) === name;
  if (begins(0, "fLaC") && view.byteLength > 21) return (view.getUint16(18) << 4) | (view.getUint8(20) >> 4);
  if (begins(0, "OggS") && view.byteLength > 48) {
    if (begins(28, "\x01vorbis")) return view.getUint32(40, true);
    return begins(28, "OpusHead") ? 48000 : null;
  }
  let at = 0;
  if (begins(0, "ID3") && view.byteLength > 10) {
    at = 10 + [6, 7, 8, 9].reduce((size, i) => (size << 7) | (view.getUint8(i) & 127), 0);
  }
  const header = at + 4 <= bytes.byteLength ? new DataView(bytes, at, 4).getUint32(0) : 0;
  const [version, layer, index] = [(header >>> 19) & 3, (header >>> 17) & 3, (header >>> 10) & 3];
  if (header >>> 21 !== 0x7ff || version === 1 || layer === 0 || index === 3) return null;
  return MPEG_RATES[index] / { 3: 1, 2: 2, 0: 4 }[version];
}
