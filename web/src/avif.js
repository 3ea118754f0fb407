// What an AVIF file says of how its picture was coded, as the network is told it: the Python package's container/avif.py,
// isobmff.py, obu.py, av1_headers.py and codecs/av1_open.py. Whether the picture can be decoded is the browser's to say.

// prettier-ignore
const AC_QLOOKUP = [
  4, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34,
  35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61,
  62, 63, 64, 65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81, 82, 83, 84, 85, 86, 87, 88,
  89, 90, 91, 92, 93, 94, 95, 96, 97, 98, 99, 100, 101, 102, 104, 106, 108, 110, 112, 114, 116, 118, 120, 122,
  124, 126, 128, 130, 132, 134, 136, 138, 140, 142, 144, 146, 148, 150, 152, 155, 158, 161, 164, 167, 170,
  173, 176, 179, 182, 185, 188, 191, 194, 197, 200, 203, 207, 211, 215, 219, 223, 227, 231, 235, 239, 243,
  247, 251, 255, 260, 265, 270, 275, 280, 285, 290, 295, 300, 305, 311, 317, 323, 329, 335, 341, 347, 353,
  359, 366, 373, 380, 387, 394, 401, 408, 416, 424, 432, 440, 448, 456, 465, 474, 483, 492, 501, 510, 520,
  530, 540, 550, 560, 571, 582, 593, 604, 615, 627, 639, 651, 663, 676, 689, 702, 715, 729, 743, 757, 771,
  786, 801, 816, 832, 848, 864, 881, 898, 915, 933, 951, 969, 988, 1007, 1026, 1046, 1066, 1087, 1108, 1129,
  1151, 1173, 1196, 1219, 1243, 1267, 1292, 1317, 1343, 1369, 1396, 1423, 1451, 1479, 1508, 1537, 1567, 1597,
  1628, 1660, 1692, 1725, 1759, 1793, 1828,
];
// bits per pixel and base_q_idx of photographs, for headers that do not tell it
// prettier-ignore
const TYPICAL = [[0.05, 245], [0.1, 225], [0.2, 200], [0.4, 175], [0.8, 145], [1.6, 100], [2.5, 60], [4, 25], [6, 10]];
const UUID = "4ea7de807e6344ea88a015a8f357d86c";
// by quarter turns anticlockwise, then without a mirror, with one that exchanges top and bottom, left and right
const ORIENTATIONS = [[1, 4, 2], [8, 5, 7], [3, 2, 4], [6, 7, 5]];
const SEQUENCE_HEADER = 1, TEMPORAL_DELIMITER = 2, FRAME_HEADER = 3, FRAME = 6;
const SEGMENT_FEATURE_BITS = [9, 7, 7, 7, 7, 3, 0, 0];

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }
  uint(size) {
    if (this.at + size > this.bytes.length) throw new Error("cut short or damaged");
    let value = 0;
    for (const end = this.at + size; this.at < end; this.at++) value = value * 256 + this.bytes[this.at];
    return value;
  }
  text(size) {
    return String.fromCharCode(...Array.from({ length: size }, () => this.uint(1)));
  }
}

class Bits {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }
  f(count) {
    let value = 0;
    for (const end = this.at + count; this.at < end; this.at++) {
      if (this.at >> 3 >= this.bytes.length) throw new Error("AV1: a header is cut short or damaged");
      value = value * 2 + ((this.bytes[this.at >> 3] >> (7 - (this.at & 7))) & 1);
    }
    return value;
  }
  su(count) {
    const value = this.f(count);
    return value >= 2 ** (count - 1) ? value - 2 ** count : value;
  }
  ns(n) {
    const width = 32 - Math.clz32(n), short = 2 ** width - n, value = this.f(width - 1);
    return value < short ? value : value * 2 - short + this.f(1);
  }
  uvlc() {
    let zeros = 0;
    while (zeros < 32 && !this.f(1)) zeros++;
    if (zeros < 32) this.f(zeros);
  }
}

function* boxes(bytes) {
  for (let at = 0; at < bytes.length; ) {
    const reader = new Reader(bytes.subarray(at));
    let size = reader.uint(4);
    const kind = reader.text(4);
    if (size === 1) size = reader.uint(8);
    else if (size === 0) size = bytes.length - at;
    if (size < reader.at || size > bytes.length - at) throw new Error(`a box ${kind} is cut short or damaged`);
    yield [kind, bytes.subarray(at + reader.at, at + size)];
    at += size;
  }
}

function readMeta(file, body) {
  const meta = { primary: null, kinds: new Map(), locations: new Map(), associated: new Map(), grids: new Map() };
  const known = [], tables = [];
  let idat = null;
  for (const [kind, content] of boxes(body.subarray(4))) {
    const reader = new Reader(content);
    if (kind === "idat") idat = content;
    if (kind === "iprp") {
      for (const [inner, part] of boxes(content)) {
        if (inner === "ipco") known.push(...boxes(part));
        else if (inner === "ipma") tables.push(part);
      }
    }
    if (!["pitm", "iloc", "iinf", "iref"].includes(kind)) continue;
    const version = reader.uint(1);
    reader.uint(3);
    if (kind === "pitm") meta.primary = reader.uint(version ? 4 : 2);
    else if (kind === "iloc") readLocations(meta, reader, version);
    else if (kind === "iinf") {
      for (const [inner, part] of boxes(content.subarray(version ? 8 : 6))) {
        const info = new Reader(part), entry = info.uint(1);
        info.uint(3);
        if (inner !== "infe" || entry < 2) continue;
        const item = info.uint(entry === 2 ? 2 : 4);
        info.uint(2);
        meta.kinds.set(item, info.text(4));
      }
    } else {
      for (const [inner, part] of boxes(content.subarray(4))) {
        const reference = new Reader(part), size = version ? 4 : 2, source = reference.uint(size);
        const targets = Array.from({ length: reference.uint(2) }, () => reference.uint(size));
        if (inner === "dimg" && !meta.grids.has(source)) meta.grids.set(source, targets);
      }
    }
  }
  for (const content of tables) {
    const reader = new Reader(content), version = reader.uint(1), size = reader.uint(3) & 1 ? 2 : 1;
    for (let left = reader.uint(4); left > 0; left--) {
      const item = reader.uint(version ? 4 : 2);
      const indices = Array.from({ length: reader.uint(1) }, () => reader.uint(size) % 2 ** (8 * size - 1));
      meta.associated.set(item, indices.filter(Boolean).map((index) => known[index - 1] ?? ["", new Uint8Array()]));
    }
  }
  meta.property = (item, kind) => meta.associated.get(item)?.find(([name]) => name === kind)?.[1] ?? null;
  meta.data = (item) => {
    const { method, extents } = meta.locations.get(item) ?? { method: 2, extents: [] };
    const source = [file, idat][method];
    if (!source) throw new Error(`item ${item} has no data in this file`);
    const pieces = extents.map(([offset, length]) => source.subarray(offset, length ? offset + length : undefined));
    const joined = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
    pieces.reduce((at, piece) => (joined.set(piece, at), at + piece.length), 0);
    return joined;
  };
  return meta;
}

function readLocations(meta, reader, version) {
  const sizes = reader.uint(2), [offset, length, base, index] = [12, 8, 4, 0].map((shift) => (sizes >> shift) & 15);
  for (let left = reader.uint(version === 2 ? 4 : 2); left > 0; left--) {
    const item = reader.uint(version === 2 ? 4 : 2), method = version ? reader.uint(2) & 15 : 0;
    reader.uint(2);
    const start = reader.uint(base), extents = [];
    for (let more = reader.uint(2); more > 0; more--) {
      reader.uint(version ? index : 0);
      extents.push([start + reader.uint(offset), reader.uint(length)]);
    }
    meta.locations.set(item, { method, extents });
  }
}

function readSequence(bits) {
  const s = { profile: bits.f(3), still: bits.f(1), reduced: bits.f(1), points: [], idc: 0 };
  Object.assign(s, { model: 0, equal: 0, removal: 0, presentation: 0, frameId: 0, screen: 2, integer: 2, order: 0 });
  if (s.reduced) bits.f(5);
  else readOperatingPoints(bits, s);
  s.widthBits = bits.f(4) + 1;
  s.heightBits = bits.f(4) + 1;
  s.width = bits.f(s.widthBits) + 1;
  s.height = bits.f(s.heightBits) + 1;
  if (!s.reduced && bits.f(1)) s.frameId = bits.f(4) + bits.f(3) + 3;
  s.superblock128 = bits.f(1);
  bits.f(2);
  if (!s.reduced) {
    bits.f(4);
    const hint = bits.f(1);
    if (hint) bits.f(2);
    s.screen = bits.f(1) ? 2 : bits.f(1);
    if (s.screen) s.integer = bits.f(1) ? 2 : bits.f(1);
    if (hint) s.order = bits.f(3) + 1;
  }
  s.superres = bits.f(1);
  bits.f(2);
  const high = bits.f(1);
  s.depth = 8 + 2 * high;
  if (s.profile === 2 && high && bits.f(1)) s.depth = 12;
  s.mono = s.profile === 1 ? 0 : bits.f(1);
  const colour = bits.f(1) ? [bits.f(8), bits.f(8), bits.f(8)] : [2, 2, 2];
  s.transfer = colour[1];
  s.subsampling = [0, 0];
  if (s.mono) {
    bits.f(1);
    return { ...s, chroma: "4:0:0", separate: 0 };
  }
  if (colour.join() !== "1,13,0") {
    bits.f(1);
    if (s.profile === 0) s.subsampling = [1, 1];
    else if (s.profile === 2) {
      const x = s.depth === 12 ? bits.f(1) : 1;
      s.subsampling = [x, s.depth === 12 && x ? bits.f(1) : 0];
    }
    if (s.subsampling.join() === "1,1") bits.f(2);
  }
  return { ...s, chroma: ["4:4:4", "4:2:2", "4:2:0"][s.subsampling[0] + s.subsampling[1]], separate: bits.f(1) };
}

function readOperatingPoints(bits, s) {
  let delay = 0;
  if (bits.f(1)) {
    bits.f(64);
    s.equal = bits.f(1);
    if (s.equal) bits.uvlc();
    s.model = bits.f(1);
    if (s.model) {
      delay = bits.f(5) + 1;
      bits.f(32);
      s.removal = bits.f(5) + 1;
      s.presentation = bits.f(5) + 1;
    }
  }
  const display = bits.f(1);
  for (let left = bits.f(5) + 1; left > 0; left--) {
    const idc = bits.f(12);
    if (bits.f(5) > 7) bits.f(1);
    const model = s.model && bits.f(1);
    if (model) bits.f(2 * delay + 1);
    if (display && bits.f(1)) bits.f(4);
    s.points.push([idc, model]);
  }
  s.idc = s.points[0][0];
}

// base_q_idx, null where the header needs other frames, and whether there are matrices and steps by superblock
function readFrame(s, bits, temporal, spatial) {
  const frame = { index: null, qmatrix: false, delta: false };
  let type = 0, shown = 1, resilient = 1;
  if (!s.reduced) {
    if (bits.f(1)) return frame;
    type = bits.f(2);
    shown = bits.f(1);
    if (shown && s.model && !s.equal) bits.f(s.presentation);
    if (!shown) bits.f(1);
    if (type !== 3 && !(type === 0 && shown)) resilient = bits.f(1);
  }
  if (type !== 0 && type !== 2) return frame;
  const noUpdate = bits.f(1), screen = s.screen === 2 ? bits.f(1) : s.screen;
  if (screen && s.integer === 2) bits.f(1);
  bits.f(s.frameId);
  const override = !s.reduced && bits.f(1);
  bits.f(s.order);
  if (s.model && bits.f(1)) {
    for (const [idc, model] of s.points) {
      if (model && (idc === 0 || ((idc >> temporal) & 1 && (idc >> (spatial + 8)) & 1))) bits.f(s.removal);
    }
  }
  if (!(type === 0 && shown) && bits.f(8) !== 255 && resilient) bits.f(8 * s.order);
  const width = override ? bits.f(s.widthBits) + 1 : s.width, height = override ? bits.f(s.heightBits) + 1 : s.height;
  let coded = width;
  if (s.superres && bits.f(1)) {
    const denominator = bits.f(3) + 9;
    coded = Math.floor((width * 8 + (denominator >> 1)) / denominator);
  }
  if (bits.f(1)) bits.f(32);
  const blockCopy = screen && coded === width && bits.f(1);
  if (!(s.reduced || noUpdate)) bits.f(1);
  skipTileInfo(s, bits, coded, height);
  frame.index = bits.f(8);
  const delta = () => (bits.f(1) ? bits.su(7) : 0);
  delta();
  if (!s.mono) {
    const differ = s.separate && bits.f(1);
    for (let left = differ ? 4 : 2; left > 0; left--) delta();
  }
  frame.qmatrix = bits.f(1) === 1;
  if (frame.qmatrix) bits.f(s.separate ? 12 : 8);
  if (bits.f(1)) {
    for (let segment = 0; segment < 8; segment++) for (const size of SEGMENT_FEATURE_BITS) if (bits.f(1)) bits.f(size);
  }
  frame.delta = frame.index !== 0 && bits.f(1) === 1;
  return frame;
}

function skipTileInfo(s, bits, width, height) {
  const log2 = (size, target) => 32 - Math.clz32(Math.max(Math.ceil(target / size) - 1, 0));
  const shift = s.superblock128 ? 7 : 6, side = 2 ** shift, across = Math.ceil(width / side), down = Math.ceil(height / side);
  const widest = 4096 >> shift, leastColumns = log2(widest, across);
  const least = Math.max(leastColumns, log2((4096 * 2304) >> (2 * shift), down * across));
  const grown = (value, most) => {
    while (value < most && bits.f(1)) value++;
    return value;
  };
  const spaced = (total, most) => {
    let count = 0, largest = 0;
    for (let start = 0; start < total; count++) {
      const size = bits.ns(Math.min(total - start, most)) + 1;
      largest = Math.max(largest, size);
      start += size;
    }
    return [count, largest];
  };
  let columns, rows;
  if (bits.f(1)) {
    columns = grown(leastColumns, log2(1, Math.min(across, 64)));
    rows = grown(Math.max(least - columns, 0), log2(1, Math.min(down, 64)));
  } else {
    const [count, largest] = spaced(across, widest);
    const area = least ? Math.floor((down * across) / 2 ** (least + 1)) : down * across;
    columns = log2(1, count);
    rows = log2(1, spaced(down, Math.max(Math.floor(area / largest), 1))[0]);
  }
  if (columns || rows) bits.f(columns + rows + 2);
}

// the sequence header, the last frame's, and the bytes behind the temporal delimiters at the start
function readObus(data) {
  let sequence = null, frame = null, delimiters = 0;
  for (let at = 0; at < data.length; ) {
    const head = data[at++], extension = head & 4 ? data[at++] : 0;
    let length = data.length - at;
    if (head & 2) {
      length = 0;
      for (let shift = 1; ; shift *= 128) {
        if (at >= data.length || shift > 128 ** 7) throw new Error("AV1: the size of an OBU is damaged");
        length += (data[at] & 127) * shift;
        if (data[at++] < 128) break;
      }
    }
    const kind = (head >> 3) & 15, payload = data.subarray(at, at + length);
    if (head & 128 || payload.length < length) throw new Error("AV1: cut short or damaged");
    at += length;
    if (kind === TEMPORAL_DELIMITER && !sequence) delimiters = at;
    const temporal = extension >> 5, spatial = (extension >> 3) & 3, idc = sequence?.idc ?? 0;
    if (idc && head & 4 && !((idc >> temporal) & 1 && (idc >> (spatial + 8)) & 1)) continue;
    if (kind === SEQUENCE_HEADER) sequence = readSequence(new Bits(payload));
    else if ((kind === FRAME || kind === FRAME_HEADER) && sequence) {
      frame = readFrame(sequence, new Bits(payload), temporal, spatial);
    }
  }
  if (!sequence || !frame) throw new Error("AV1: no picture");
  return { sequence, frame, size: data.length - delimiters, delimiters };
}

function nominalIndex(bpp) {
  const place = TYPICAL.findIndex(([rate]) => rate > bpp);
  if (place === 0) return TYPICAL[0][1];
  if (place < 0) return TYPICAL[TYPICAL.length - 1][1];
  const [[low, above], [high, below]] = [TYPICAL[place - 1], TYPICAL[place]];
  return Math.round(above + ((below - above) * Math.log(bpp / low)) / Math.log(high / low));
}

function wishes(payload) {
  if (!payload || payload.length !== 10 || payload[0] !== 1 || (payload[1] > 100 && payload[1] < 255)) return {};
  const seed = new DataView(payload.buffer, payload.byteOffset).getBigUint64(2, true);
  return { realism: payload[1] === 255 ? null : payload[1] / 100, seed };
}

/**
 * What a still AVIF says of itself: its size as coded, the 8 numbers that the network is told (the last one is ac_q), whether
 * AV1 was lossless, EXIF's number of its orientation, and the realism (null: none) and seed (0n: none) that it asks for.
 * Throws an Error for what is none, is cut short, or has other than 8 bits or high dynamic range.
 */
export function readAvif(bytes) {
  let meta = null, payload = null, brands = "";
  try {
    for (const [kind, body] of boxes(bytes)) {
      if (kind === "ftyp") brands = new Reader(body).text(Math.min(body.length, 256));
      else if (kind === "meta") meta ??= readMeta(bytes, body);
      else if (kind === "uuid" && body.length > 16) {
        const name = Array.from(body.subarray(0, 16), (byte) => byte.toString(16).padStart(2, "0")).join("");
        if (name === UUID) payload ??= body.subarray(16);
      }
    }
  } catch (error) {
    if (/avi[fs]/.test(brands)) throw error;
  }
  if (!/avi[fs]/.test(brands)) throw new Error("not an AVIF file");
  if (!meta || meta.primary === null) throw new Error("AVIF: no primary item");
  const item = meta.primary, grid = meta.kinds.get(item) === "grid";
  const cells = (grid ? meta.grids.get(item) ?? [] : [item]).map((cell) => readObus(meta.data(cell)));
  const size = meta.property(item, "ispe");
  if (!cells.length || !size) throw new Error("AVIF: no picture");
  const reader = new Reader(size.subarray(4)), width = reader.uint(4), height = reader.uint(4);
  const { sequence, frame } = cells[0];
  let transfer = sequence.transfer;
  for (const [kind, body] of meta.associated.get(item) ?? []) {
    if (kind === "colr" && new Reader(body).text(4) === "nclx") transfer = body[6] * 256 + body[7];
  }
  if (sequence.depth !== 8) throw new Error(`AVIF: ${sequence.depth} bits a sample; pictures of 8 bits are redrawn`);
  if (transfer === 16 || transfer === 18) throw new Error("AVIF: high dynamic range is not redrawn");
  // of a grid the delimiters count
  const bpp = (8 * cells.reduce((sum, cell) => sum + cell.size + (grid ? cell.delimiters : 0), 0)) / (width * height);
  const index = frame.index === null || (grid && frame.index > 0) ? nominalIndex(bpp) : frame.index;
  const step = AC_QLOOKUP[index], log2 = (value) => Math.log2(Math.max(value, 2 ** -12));
  const subsampled = sequence.chroma === "4:2:0";
  const flags = [frame.qmatrix, frame.delta, subsampled || sequence.chroma === "4:2:2", subsampled, false].map(Number);
  const coding = [log2(step) / 3 - 7 / 3, log2(bpp) / 3 + 2 / 3, ...flags, step];
  const turn = meta.property(item, "irot"), mirror = meta.property(item, "imir");
  const orientation = ORIENTATIONS[turn ? turn[0] & 3 : 0][mirror ? 1 + (mirror[0] & 1) : 0];
  return { width, height, coding, lossless: index === 0, orientation, realism: null, seed: 0n, ...wishes(payload) };
}
