/** Random numbers as JAX draws them: the page's output is that of the Python package, sample by sample. */

const ROTATIONS = [[13, 15, 26, 6], [17, 29, 16, 24]];
const PARITY = 0x1bd11bda;

/** Threefry-2x32 of 20 rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): two words. */
export function threefry([key0, key1], one, other) {
  const schedule = [key0, key1, key0 ^ key1 ^ PARITY];
  one = (one + key0) | 0;
  other = (other + key1) | 0;
  for (let step = 0; step < 5; step++) {
    for (const rotation of ROTATIONS[step % 2]) {
      one = (one + other) | 0;
      other = one ^ ((other << rotation) | (other >>> (32 - rotation)));
    }
    one = (one + schedule[(step + 1) % 3]) | 0;
    other = (other + schedule[(step + 2) % 3] + step + 1) | 0;
  }
  return [one >>> 0, other >>> 0];
}

const CENTRAL = [
  2.81022636e-8, 3.43273939e-7, -3.5233877e-6, -4.39150654e-6, 0.00021858087, -0.00125372503, -0.00417768164,
  0.246640727, 1.50140941,
];
const TAIL = [
  -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
  1.00167406, 2.83297682,
];

/** Inverse error function in single precision (Giles 2012, "Approximating the erfinv function"), as XLA has it. */
export function erfinv(x) {
  const w = -Math.log1p(-x * x);
  const [coefficients, at] = w < 5 ? [CENTRAL, w - 2.5] : [TAIL, Math.sqrt(w) - 3];
  return x * coefficients.reduce((sum, coefficient) => sum * at + coefficient, 0);
}

/**
 * Standard normal noise (frames, size) of the noise input `index`, from latent frame `first` of absolute time on: a
 * frame has the same noise in every window and channel.
 */
export function anchoredNoise(seed, index, first, frames, size) {
  const key = threefry([0, seed], 0, index);
  const lowest = Math.fround(-1 + 2 ** -24);
  const noise = new Float32Array(frames * size);
  for (let frame = 0; frame < frames; frame++) {
    const frameKey = threefry(key, 0, first + frame);
    for (let i = 0; i < size; i++) {
      const [one, other] = threefry(frameKey, 0, i);
      const fraction = ((one ^ other) >>> 9) * 2 ** -23;
      const uniform = Math.max(lowest, Math.fround(2 * fraction + lowest));
      noise[frame * size + i] = Math.SQRT2 * erfinv(uniform);
    }
  }
  return noise;
}
