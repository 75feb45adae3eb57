/** Fourier transforms of any length whose prime factors are small, in float64. */

/** Of complex values: Stockham's algorithm, whose passes need no reordering (Van Loan 1992, section 1.7). */
class ComplexFFT {
  constructor(size) {
    this.size = size;
    this.radices = radices(size);
    this.cos = Float64Array.from({ length: size }, (_, i) => Math.cos((2 * Math.PI * i) / size));
    this.sin = Float64Array.from({ length: size }, (_, i) => -Math.sin((2 * Math.PI * i) / size));
    this.spare = [new Float64Array(size), new Float64Array(size)];
  }

  /** The transform of re + i im, in their place or in the spare arrays: [re, im] of where it is. */
  forward(re, im) {
    let from = [re, im];
    let to = this.spare;
    let stride = 1;
    for (const radix of this.radices) {
      const pass = this[`pass${radix}`] ?? this.passAny;
      pass.call(this, ...from, ...to, stride, radix);
      [from, to] = [to, from];
      stride *= radix;
    }
    return from;
  }

  pass2(re, im, outRe, outIm, stride) {
    const half = this.size / 2;
    for (let p = 0; p < half / stride; p++) {
      const c = this.cos[p * stride];
      const s = this.sin[p * stride];
      for (let q = 0; q < stride; q++) {
        const a = q + stride * p;
        const b = a + half;
        const to = q + stride * 2 * p;
        const dRe = re[a] - re[b];
        const dIm = im[a] - im[b];
        outRe[to] = re[a] + re[b];
        outIm[to] = im[a] + im[b];
        outRe[to + stride] = dRe * c - dIm * s;
        outIm[to + stride] = dRe * s + dIm * c;
      }
    }
  }

  pass3(re, im, outRe, outIm, stride) {
    const third = this.size / 3;
    const sine = Math.sin((2 * Math.PI) / 3);
    for (let p = 0; p < third / stride; p++) {
      const [c1, s1] = [this.cos[p * stride], this.sin[p * stride]];
      const [c2, s2] = [this.cos[2 * p * stride], this.sin[2 * p * stride]];
      for (let q = 0; q < stride; q++) {
        const a = q + stride * p;
        const b = a + third;
        const c = b + third;
        const to = q + stride * 3 * p;
        const bcRe = re[b] + re[c];
        const bcIm = im[b] + im[c];
        const mRe = re[a] - bcRe / 2;
        const mIm = im[a] - bcIm / 2;
        const dRe = sine * (im[b] - im[c]); // (b - c) times -i
        const dIm = sine * (re[c] - re[b]);
        outRe[to] = re[a] + bcRe;
        outIm[to] = im[a] + bcIm;
        outRe[to + stride] = (mRe + dRe) * c1 - (mIm + dIm) * s1;
        outIm[to + stride] = (mRe + dRe) * s1 + (mIm + dIm) * c1;
        outRe[to + 2 * stride] = (mRe - dRe) * c2 - (mIm - dIm) * s2;
        outIm[to + 2 * stride] = (mRe - dRe) * s2 + (mIm - dIm) * c2;
      }
    }
  }

  pass4(re, im, outRe, outIm, stride) {
    const quarter = this.size / 4;
    for (let p = 0; p < quarter / stride; p++) {
      const [c1, s1] = [this.cos[p * stride], this.sin[p * stride]];
      const [c2, s2] = [this.cos[2 * p * stride], this.sin[2 * p * stride]];
      const [c3, s3] = [this.cos[3 * p * stride], this.sin[3 * p * stride]];
      for (let q = 0; q < stride; q++) {
        const a = q + stride * p;
        const b = a + quarter;
        const c = b + quarter;
        const d = c + quarter;
        const to = q + stride * 4 * p;
        const acRe = re[a] + re[c];
        const acIm = im[a] + im[c];
        const bdRe = re[b] + re[d];
        const bdIm = im[b] + im[d];
        const aRe = re[a] - re[c];
        const aIm = im[a] - im[c];
        const bRe = im[b] - im[d]; // (b - d) times -i
        const bIm = re[d] - re[b];
        outRe[to] = acRe + bdRe;
        outIm[to] = acIm + bdIm;
        outRe[to + stride] = (aRe + bRe) * c1 - (aIm + bIm) * s1;
        outIm[to + stride] = (aRe + bRe) * s1 + (aIm + bIm) * c1;
        outRe[to + 2 * stride] = (acRe - bdRe) * c2 - (acIm - bdIm) * s2;
        outIm[to + 2 * stride] = (acRe - bdRe) * s2 + (acIm - bdIm) * c2;
        outRe[to + 3 * stride] = (aRe - bRe) * c3 - (aIm - bIm) * s3;
        outIm[to + 3 * stride] = (aRe - bRe) * s3 + (aIm - bIm) * c3;
      }
    }
  }

  pass5(re, im, outRe, outIm, stride) {
    const fifth = this.size / 5;
    const angle = (2 * Math.PI) / 5;
    const [cos1, cos2] = [Math.cos(angle), Math.cos(2 * angle)];
    const [sin1, sin2] = [Math.sin(angle), Math.sin(2 * angle)];
    for (let p = 0; p < fifth / stride; p++) {
      const [c1, s1] = [this.cos[p * stride], this.sin[p * stride]];
      const [c2, s2] = [this.cos[2 * p * stride], this.sin[2 * p * stride]];
      const [c3, s3] = [this.cos[3 * p * stride], this.sin[3 * p * stride]];
      const [c4, s4] = [this.cos[4 * p * stride], this.sin[4 * p * stride]];
      for (let q = 0; q < stride; q++) {
        const a = q + stride * p;
        const b = a + fifth;
        const c = b + fifth;
        const d = c + fifth;
        const e = d + fifth;
        const to = q + stride * 5 * p;
        const beRe = re[b] + re[e];
        const beIm = im[b] + im[e];
        const cdRe = re[c] + re[d];
        const cdIm = im[c] + im[d];
        const bRe = im[b] - im[e]; // (b - e) times -i
        const bIm = re[e] - re[b];
        const cRe = im[c] - im[d]; // (c - d) times -i
        const cIm = re[d] - re[c];
        const mRe = re[a] + cos1 * beRe + cos2 * cdRe;
        const mIm = im[a] + cos1 * beIm + cos2 * cdIm;
        const nRe = re[a] + cos2 * beRe + cos1 * cdRe;
        const nIm = im[a] + cos2 * beIm + cos1 * cdIm;
        const tRe = sin1 * bRe + sin2 * cRe;
        const tIm = sin1 * bIm + sin2 * cIm;
        const uRe = sin2 * bRe - sin1 * cRe;
        const uIm = sin2 * bIm - sin1 * cIm;
        outRe[to] = re[a] + beRe + cdRe;
        outIm[to] = im[a] + beIm + cdIm;
        outRe[to + stride] = (mRe + tRe) * c1 - (mIm + tIm) * s1;
        outIm[to + stride] = (mRe + tRe) * s1 + (mIm + tIm) * c1;
        outRe[to + 2 * stride] = (nRe + uRe) * c2 - (nIm + uIm) * s2;
        outIm[to + 2 * stride] = (nRe + uRe) * s2 + (nIm + uIm) * c2;
        outRe[to + 3 * stride] = (nRe - uRe) * c3 - (nIm - uIm) * s3;
        outIm[to + 3 * stride] = (nRe - uRe) * s3 + (nIm - uIm) * c3;
        outRe[to + 4 * stride] = (mRe - tRe) * c4 - (mIm - tIm) * s4;
        outIm[to + 4 * stride] = (mRe - tRe) * s4 + (mIm - tIm) * c4;
      }
    }
  }

  passAny(re, im, outRe, outIm, stride, radix) {
    const { size, cos, sin } = this;
    const part = size / radix;
    for (let p = 0; p < part / stride; p++) {
      for (let q = 0; q < stride; q++) {
        for (let k = 0; k < radix; k++) {
          let sumRe = 0;
          let sumIm = 0;
          for (let j = 0; j < radix; j++) {
            const at = q + stride * p + part * j;
            const turn = (((j * k) % radix) * part + p * k * stride) % size;
            sumRe += re[at] * cos[turn] - im[at] * sin[turn];
            sumIm += re[at] * sin[turn] + im[at] * cos[turn];
          }
          const to = q + stride * (radix * p + k);
          outRe[to] = sumRe;
          outIm[to] = sumIm;
        }
      }
    }
  }
}

function radices(size) {
  const found = [];
  for (const radix of [4, 2, 3, 5, 7, 11, 13]) {
    for (; size % radix === 0; size /= radix) found.push(radix);
  }
  if (size !== 1) throw new RangeError(`no transform of a length with the factor ${size}`);
  return found;
}

/** Of real values of an even length, by a complex transform of half the length. */
export class RealFFT {
  constructor(size) {
    this.size = size;
    this.bins = size / 2 + 1;
    this.half = new ComplexFFT(size / 2);
    this.cos = Float64Array.from({ length: this.bins }, (_, k) => Math.cos((2 * Math.PI * k) / size));
    this.sin = Float64Array.from({ length: this.bins }, (_, k) => Math.sin((2 * Math.PI * k) / size));
    this.re = new Float64Array(size / 2);
    this.im = new Float64Array(size / 2);
    this.spectrum = { re: new Float64Array(this.bins), im: new Float64Array(this.bins) };
  }

  /** The spectrum {re, im} of `size` values; it is overwritten by the next one. */
  forward(x) {
    const count = this.size / 2;
    for (let i = 0; i < count; i++) {
      this.re[i] = x[2 * i];
      this.im[i] = x[2 * i + 1];
    }
    const [zRe, zIm] = this.half.forward(this.re, this.im);
    const { re, im } = this.spectrum;
    for (let k = 0; k <= count; k++) {
      const a = k % count;
      const b = (count - k) % count;
      const evenRe = (zRe[a] + zRe[b]) / 2;
      const evenIm = (zIm[a] - zIm[b]) / 2;
      const oddRe = (zIm[a] + zIm[b]) / 2;
      const oddIm = (zRe[b] - zRe[a]) / 2;
      re[k] = evenRe + oddRe * this.cos[k] + oddIm * this.sin[k];
      im[k] = evenIm + oddIm * this.cos[k] - oddRe * this.sin[k];
    }
    return this.spectrum;
  }

  /** The `size` values of a spectrum, as float32. */
  inverse({ re, im }) {
    const count = this.size / 2;
    for (let k = 0; k < count; k++) {
      const other = count - k;
      const evenRe = re[k] + re[other];
      const evenIm = im[k] - im[other];
      const dRe = re[k] - re[other];
      const dIm = im[k] + im[other];
      const oddRe = dRe * this.cos[k] - dIm * this.sin[k];
      const oddIm = dRe * this.sin[k] + dIm * this.cos[k];
      this.re[k] = evenRe - oddIm;
      this.im[k] = -(evenIm + oddRe); // the conjugate's forward transform is the inverse's conjugate
    }
    const [zRe, zIm] = this.half.forward(this.re, this.im);
    const x = new Float32Array(this.size);
    for (let i = 0; i < count; i++) {
      x[2 * i] = zRe[i] / this.size;
      x[2 * i + 1] = -zIm[i] / this.size;
    }
    return x;
  }
}

const transforms = new Map();

/** The transform of a length, made once. */
export function realFFT(size) {
  if (!transforms.has(size)) transforms.set(size, new RealFFT(size));
  return transforms.get(size);
}
