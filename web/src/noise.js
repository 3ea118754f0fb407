// Standard normal noise by seed, as the Python package's diffusion/noise.py: Philox-4x64-10, and the inverse of the normal
// distribution function (Cephes, ndtri).

const MASK = 0xffffffffffffffffn;
const polynomial = (x, coefficients) => coefficients.reduce((sum, c) => sum * x + c, 0);
// prettier-ignore
const P0 = [-5.99633501014107895267e1, 9.80010754185999661536e1, -5.66762857469070293439e1, 1.39312609387279679503e1,
  -1.23916583867381258016];
// prettier-ignore
const Q0 = [1, 1.95448858338141759834, 4.67627912898881538453, 8.63602421390890590575e1, -2.25462687854119370527e2,
  2.00260212380060660359e2, -8.20372256168333339912e1, 1.59056225126211695515e1, -1.18331621121330003142];
// prettier-ignore
const P1 = [4.05544892305962419923, 3.15251094599893866154e1, 5.71628192246421288162e1, 4.408050738932008347e1,
  1.46849561928858024014e1, 2.18663306850790267539, -1.40256079171354495875e-1, -3.50424626827848203418e-2,
  -8.57456785154685413611e-4];
// prettier-ignore
const Q1 = [1, 1.57799883256466749731e1, 4.53907635128879210584e1, 4.13172038254672030440e1, 1.50425385692907503408e1,
  2.50464946208309415979, -1.42182922854787788574e-1, -3.80806407691578277194e-2, -9.33259480895457427372e-4];
// prettier-ignore
const P2 = [3.23774891776946035970, 6.91522889068984211695, 3.93881025292474443415, 1.33303460815807542389,
  2.01485389549179081538e-1, 1.23716634817820021358e-2, 3.01581553508235416007e-4, 2.65806974686737550832e-6,
  6.23974539184983293730e-9];
// prettier-ignore
const Q2 = [1, 6.02427039364742014255, 3.67983563856160859403, 1.37702099489081330271, 2.16236993594496635890e-1,
  1.34204006088543189037e-2, 3.28014464682127739104e-4, 2.89247864745380683936e-6, 6.79019408009981274425e-9];

function ndtri(probability) {
  const upper = probability > 1 - 0.13533528323661269189, y = upper ? 1 - probability : probability;
  if (y > 0.13533528323661269189) {
    const d = y - 0.5, d2 = d * d;
    return (d + d * ((d2 * polynomial(d2, P0)) / polynomial(d2, Q0))) * 2.50662827463100050242;
  }
  const x = Math.sqrt(-2 * Math.log(y)), z = 1 / x, [p, q] = x < 8 ? [P1, Q1] : [P2, Q2];
  const far = x - Math.log(x) / x - (z * polynomial(z, p)) / polynomial(z, q);
  return upper ? far : -far;
}

function block(c0, c1, c2, c3, key) {
  let k0 = key, k1 = 0n;
  for (let round = 0; round < 10; round++) {
    const a = 0xd2e7470ee14c6c93n * c0, b = 0xca5a826395121157n * c2;
    [c0, c1, c2, c3] = [(b >> 64n) ^ c1 ^ k0, b & MASK, (a >> 64n) ^ c3 ^ k1, a & MASK];
    k0 = (k0 + 0x9e3779b97f4a7c15n) & MASK;
    k1 = (k1 + 0xbb67ae8584caa73bn) & MASK;
  }
  return [c0, c1, c2, c3];
}

/** Values [channel][row][column] for the rows and columns from (top, left) on, float32; step 0. seed: a BigInt. */
export function seededNoise(seed, stream, channels, height, width, top, left) {
  const out = new Float32Array(channels * height * width);
  const first = left * channels, count = width * channels;
  for (let row = 0; row < height; row++) {
    let words = [];
    for (let i = 0; i < count; i++) {
      const place = (first + i) % 4;
      if (i === 0 || place === 0) words = block(BigInt(Math.floor((first + i) / 4) + 1), BigInt(top + row), 0n, BigInt(stream), seed);
      const uniform = (Number(words[place] >> 12n) + 0.5) * 2 ** -52;
      out[((i % channels) * height + row) * width + Math.floor(i / channels)] = ndtri(uniform);
    }
  }
  return out;
}
