// The mask inspector: data once, then every move of λ, pair, layer or checkpoint is drawn here, without the kernel.
// Source: Kang, Kang & Kim, AAAI 2024, Eqs. 4–7. The arrays are described in catchup/inspection.py.

const INK = "#1a1a1a", FAINT = "#5a5a5a", LINE = "#9a9a9a", BLUE = "#0072B2", ORANGE = "#E69F00", DARK = "#8A5A00";
const CIVIDIS = "00224e002e6a1a386f32436d434e6c535a6d61656f6f70737d7c788c88789b9476aba072bcae6ccdbb63dec958f0d846fee838";
const FONT = "system-ui, 'Segoe UI', 'DejaVu Sans', Arial, sans-serif";
const LEFT = 84, RIGHT = 16; // margins that charts and rows of maps share
const columns = (channels) => (channels <= 32 ? channels : 24); // of maps; of more, those around the cut are shown
const SPEAK_MS = 400; // the live line waits until the hand rests

// -- data -----------------------------------------------------------------------------------------------------------

function decoded(header, view) {
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength).slice(); // aligned, ours
  const kinds = { u1: Uint8Array, u2: Uint16Array, f4: Float32Array };
  return (path) => {
    const { kind, shape, at } = header.arrays[path];
    return { data: new kinds[kind](bytes.buffer, at, shape.reduce((a, b) => a * b, 1)), shape };
  };
}

function row({ data, shape }, ...places) { // the last axis at these places
  const size = shape[shape.length - 1];
  const start = places.reduce((sum, place, axis) => sum * shape[axis] + place, 0) * size;
  return data.subarray(start, start + size);
}

function nearest(values, wanted) {
  return values.reduce((best, value, at) => (Math.abs(value - wanted) < Math.abs(values[best] - wanted) ? at : best), 0);
}

function facts(header, arrays, state) {
  const place = header.checkpoints.indexOf(state.checkpoint), depth = header.blocks.indexOf(state.layer);
  const [source, partner] = header.pairs[state.pair], path = `${place}/${depth}`;
  const order = row(arrays(`order/${path}`), state.pair), channels = order.length;
  const keep = Math.trunc(state.lam * channels); // the same doubles as int(lam * C) in Python
  const grid = arrays(`kept/${path}`).data, at = nearest(grid, keep);
  const shown = [...row(arrays(`shown/${path}`), state.pair)];
  const said = row(arrays(`mixed/${path}`), state.pair, at);
  const alone = (image) => [...row(arrays(`plain/${place}`), image)].map((value) => value / 65535);
  const mixed = header.classes.map((_, k) => (shown.includes(k) ? said[shown.indexOf(k)] / 65535 : 0));
  return {
    ...state, place, depth, source, partner, path, order, channels, keep, at: grid[at], lent: channels - keep,
    label: (image) => header.classes[header.labels[image]],
    rfi: row(arrays(`rfi/${path}`), state.pair),
    share: [source, partner].map((image) => row(arrays(`share/${path}`), image)),
    said: [alone(source), alone(partner), mixed], rows: likely(header, arrays, path, state.pair, [source, partner], shown),
  };
}

function likely(header, arrays, path, pair, images, shown) { // the classes worth a row: the labels, and one more
  const rows = [...new Set(images.map((image) => header.labels[image]))];
  const mixed = arrays(`mixed/${path}`), peak = shown.map(() => 0);
  for (let at = 0; at < mixed.shape[1]; at++) row(mixed, pair, at).forEach((value, k) => { peak[k] = Math.max(peak[k], value); });
  const others = shown.map((k, at) => [peak[at], k]).filter(([, k]) => !rows.includes(k)).sort((a, b) => b[0] - a[0]);
  return [...rows, ...others.slice(0, 3 - rows.length).map(([, k]) => k)];
}

const percent = (value) => `${Math.round(100 * value)}\u00a0%`;

function verdict(header, said) {
  const best = said.indexOf(Math.max(...said));
  return `“${header.classes[best]}”, ${percent(said[best])}`;
}

const weights = (now, between) => `${now.lam.toFixed(2)} “${now.label(now.source)}”${between}`
  + `${(1 - now.lam).toFixed(2)} “${now.label(now.partner)}”`;

function sentence(header, now) {
  const [first, second, mix] = now.said.map((said) => verdict(header, said));
  const at = now.at === now.keep ? "" : `, computed at K = ${now.at}`;
  return `λ = ${now.lam.toFixed(2)}, ${now.checkpoint}, ${now.layer}: the source (${header.names[now.source]}) keeps the `
    + `${now.keep} of ${now.channels} channels with the lowest RFI; its partner (${header.names[now.partner]}) supplies `
    + `the other ${now.lent}. Label weights: ${weights(now, " and ")}. The model says: source alone ${first}; partner alone ${second}; `
    + `mixed ${mix}${at}.`;
}

// -- drawing --------------------------------------------------------------------------------------------------------

function text(pen, words, x, y, { size = 14, bold = false, align = "left", colour = INK, max = Infinity } = {}) {
  pen.font = `${bold ? "600 " : ""}${size}px ${FONT}`;
  pen.textAlign = align;
  pen.fillStyle = colour;
  let shown = words;
  while (shown.length > 2 && pen.measureText(shown).width > max) shown = `${shown.replace(/…$/, "").slice(0, -1)}…`;
  pen.fillText(shown, x, y);
  return pen.measureText(shown).width;
}

function line(pen, x0, y0, x1, y1, colour = LINE, dash = []) {
  pen.strokeStyle = colour;
  pen.setLineDash(dash);
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x1, y1);
  pen.stroke();
  pen.setLineDash([]);
}

function hatched(pen) { // orange with dark strokes: told from the plain blue without seeing colours
  const tile = document.createElement("canvas");
  tile.width = tile.height = 7;
  const brush = tile.getContext("2d");
  brush.fillStyle = ORANGE;
  brush.fillRect(0, 0, 7, 7);
  brush.strokeStyle = DARK;
  brush.lineWidth = 1.3;
  for (const shift of [-7, 0, 7]) { brush.beginPath(); brush.moveTo(shift, 7); brush.lineTo(shift + 7, 0); brush.stroke(); }
  return pen.createPattern(tile, "repeat");
}

function box(pen, x, y, width, height, fill) {
  pen.fillStyle = fill;
  pen.fillRect(x, y, width, height);
}

function picture(width, height, pixel) { // a canvas of pixels: pixel(i) → [r, g, b]
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d"), image = pen.createImageData(width, height);
  for (let i = 0; i < width * height; i++) image.data.set([...pixel(i), 255], 4 * i);
  pen.putImageData(image, 0, 0);
  return canvas;
}

const cividis = Array.from({ length: 256 }, (_, value) => {
  const at = Math.min(15, Math.floor(value / 16)), part = value / 16 - at;
  const anchor = (k) => [0, 2, 4].map((c) => parseInt(CIVIDIS.slice(6 * k + c, 6 * k + c + 2), 16));
  return anchor(at).map((low, c) => Math.round(low + (anchor(at + 1)[c] - low) * Math.min(1, part)));
});

function atlases(arrays) { // one canvas per block, checkpoint and image, its maps side by side in rows of 32
  const made = new Map();
  return (path, image) => {
    const key = `${path}/${image}`;
    if (!made.has(key)) made.set(key, atlas(arrays(`maps/${path}`), arrays(`scale/${path}`), image));
    return made.get(key);
  };
}

function atlas(maps, scales, image) {
  const [, channels, height, width] = maps.shape, scale = row(scales, image);
  const most = scales.data.reduce((a, b) => Math.max(a, b), 0) || 1;
  const canvas = picture(32 * width, Math.ceil(channels / 32) * height, (i) => {
    const x = i % (32 * width), y = Math.floor(i / (32 * width));
    const channel = 32 * Math.floor(y / height) + Math.floor(x / width);
    if (channel >= channels) return [255, 255, 255];
    const value = maps.data[((image * channels + channel) * height + (y % height)) * width + (x % width)];
    return cividis[Math.round(Math.sqrt(((value / 255) * scale[channel]) / most) * 255)];
  });
  return { most, put: (pen, channel, x, y, side) => pen.drawImage(canvas, (channel % 32) * width,
    Math.floor(channel / 32) * height, width, height, x, y, side, side) };
}

function drawPair(pen, header, now, pictures, top) {
  const side = 104, gap = 22;
  [[now.source, "source", BLUE], [now.partner, "partner", pen.hatch]].forEach(([image, role, fill], at) => {
    const x = 16 + at * (side + gap);
    box(pen, x, top + 3, 14, 14, fill);
    text(pen, role, x + 20, top + 15, { bold: true });
    pen.drawImage(pictures[image], x, top + 24, side, side);
    pen.strokeStyle = LINE;
    pen.strokeRect(x + 0.5, top + 24.5, side - 1, side - 1);
    text(pen, header.names[image], x + side / 2, top + side + 42, { align: "center", max: side + gap - 4 });
  });
  const width = 2 * side + gap, y = top + side + 56;
  box(pen, 16, y, width * now.lam, 18, BLUE);
  box(pen, 16 + width * now.lam, y, width * (1 - now.lam), 18, pen.hatch);
  text(pen, `label: ${weights(now, " + ")}`, 16 + width / 2, y + 36, { align: "center", max: width + 24 });
}

function drawPredictions(pen, header, now, left, width, top) {
  const named = [...now.rows.map((k) => [header.classes[k], (said) => said[k]]),
    ["others", (said) => Math.max(0, 1 - now.rows.reduce((sum, k) => sum + said[k], 0))]];
  const words = 96, column = (width - words) / 3;
  const at = now.at === now.keep ? "" : ` (K = ${now.at})`;
  ["source alone", "partner alone", `mixed${at}`].forEach((head, k) => {
    const x = left + words + k * column;
    text(pen, head, x, top + 15, { bold: true, max: column - 10 });
    text(pen, `says ${verdict(header, now.said[k])}`, x, top + 36, { colour: FAINT, max: column - 10 });
    named.forEach(([, share], at) => {
      const y = top + 50 + at * 34, value = share(now.said[k]), room = column - 62;
      box(pen, x, y, room, 22, "#ececec");
      box(pen, x, y, room * value, 22, k === 2 ? "#3b3b3b" : k === 1 ? pen.hatch : BLUE);
      text(pen, percent(value), x + room + 6, y + 16);
    });
  });
  named.forEach(([name], at) => text(pen, name, left + words - 10, top + 66 + at * 34, { align: "right", max: words - 12 }));
}

function slots(now, width) { // the x of a place in the order, shared by both charts (and by the maps, if all are shown)
  const room = width - LEFT - RIGHT, each = room / now.channels;
  return { room, each, bar: Math.max(0.8, Math.min(44, each > 5 ? each * 0.72 : each - 0.2)),
    middle: (place) => LEFT + (place + 0.5) * each, cut: LEFT + now.keep * each };
}

function drawInfluence(pen, now, at, width, top, height) {
  const [source, partner] = now.share, most = Math.max(...source, ...partner) || 1, zero = top + 26 + height / 2;
  const unit = height / 2 / most;
  text(pen, "Filter influence FI, each image’s share of its sum: source up, partner down", 16, top + 14, { bold: true });
  now.order.forEach((channel, place) => {
    const x = at.middle(place) - at.bar / 2;
    box(pen, x, zero - unit * source[channel], at.bar, unit * source[channel], BLUE);
    box(pen, x, zero, at.bar, unit * partner[channel], pen.hatch);
  });
  line(pen, LEFT, zero, width - RIGHT, zero, INK);
  const tick = `${(100 * most).toPrecision(2)} %`;
  text(pen, tick, LEFT - 8, zero - height / 2 + 10, { size: 13, align: "right", colour: FAINT });
  text(pen, "0", LEFT - 8, zero + 5, { size: 13, align: "right", colour: FAINT });
  text(pen, tick, LEFT - 8, zero + height / 2, { size: 13, align: "right", colour: FAINT });
}

function drawRfi(pen, now, at, width, top, height, span) {
  const values = [...now.order].map((channel) => now.rfi[channel]);
  const low = Math.min(0, ...values), high = Math.max(0, ...values), unit = height / (high - low || 1);
  const zero = top + 48 + unit * high, bottom = top + 48 + height;
  text(pen, `RFI = source − partner, sorted. K = ⌊λC⌋ = ⌊${now.lam.toFixed(2)} · ${now.channels}⌋ = ${now.keep}`, 16, top + 14,
    { bold: true });
  if (span.count < now.channels) box(pen, LEFT + span.start * at.each, top + 24, span.count * at.each, height + 24, "#efefef");
  values.forEach((value, place) => box(pen, at.middle(place) - at.bar / 2, zero - unit * Math.max(0, value), at.bar,
    Math.max(1, unit * Math.abs(value)), place < now.keep ? BLUE : pen.hatch));
  line(pen, LEFT, zero, width - RIGHT, zero, INK);
  line(pen, at.cut, top + 24, at.cut, bottom + 2, INK, [5, 4]);
  const left = `◀ ${now.keep} kept`, right = `${now.lent} replaced ▶`;
  pen.font = `600 14px ${FONT}`;
  const [a, b] = [left, right].map((words) => pen.measureText(words).width);
  const x = Math.min(width - RIGHT - b - 8, Math.max(LEFT + a + 8, at.cut));
  text(pen, left, x - 8, top + 38, { bold: true, align: "right", colour: BLUE });
  text(pen, right, x + 8, top + 38, { bold: true, colour: DARK });
  text(pen, `${(100 * high).toPrecision(2)} %`, LEFT - 8, top + 58, { size: 13, align: "right", colour: FAINT });
  text(pen, `${(100 * low).toPrecision(2).replace("-", "−")} %`, LEFT - 8, bottom, { size: 13, align: "right", colour: FAINT });
}

function tileSide(now, width) {
  const each = (width - LEFT - RIGHT) / columns(now.channels);
  return Math.min(54, each - (each > 40 ? 9 : 5)); // the gap has room for two frames
}

function drawMaps(pen, now, atlas, width, top, span) {
  const room = width - LEFT - RIGHT, each = room / span.count, side = tileSide(now, width);
  const all = span.count === now.channels, lines = [["source", now.source], ["partner", now.partner], ["mixed", null]];
  const which = all ? `all ${now.channels} channels in this order` : `the ${span.count} of ${now.channels} in the grey band`;
  const long = text(pen, `Activation maps: ${which}`, 16, top + 14, { bold: true });
  text(pen, "crossed out: not used", 16 + long + 16, top + 14, { size: 13, colour: FAINT });
  drawScale(pen, atlas(now.path, now.source).most, width, top);
  lines.forEach(([role, image], at) => {
    const y = top + 26 + at * (side + 9);
    text(pen, role, LEFT - 10, y + side / 2 + 5, { align: "right", bold: image === null });
    for (let k = 0; k < span.count; k++) {
      const place = span.start + k, kept = place < now.keep, x = LEFT + (k + 0.5) * each - side / 2;
      const used = image === null || kept === (image === now.source && at === 0);
      drawMap(pen, atlas(now.path, image ?? (kept ? now.source : now.partner)), now.order[place], x, y, side, used, kept);
    }
  });
  const y = top + 26 + 3 * (side + 9) + 8;
  if (each >= 20) for (let k = 0; k < span.count; k++) {
    text(pen, String(now.order[span.start + k]), LEFT + (k + 0.5) * each, y + 3, { size: 12, align: "center", colour: FAINT });
  }
  text(pen, "channel", LEFT - 10, y + 3, { size: 12, align: "right", colour: FAINT });
  const cut = LEFT + (now.keep - span.start) * each;
  line(pen, cut, top + 22, cut, y - 9, INK, [5, 4]);
}

function drawMap(pen, atlas, channel, x, y, side, used, kept) {
  pen.globalAlpha = used ? 1 : 0.28;
  atlas.put(pen, channel, x, y, side);
  pen.globalAlpha = 1;
  if (!used) {
    line(pen, x + 2, y + 2, x + side - 2, y + side - 2, FAINT);
    return line(pen, x + side - 2, y + 2, x + 2, y + side - 2, FAINT);
  }
  pen.strokeStyle = kept ? BLUE : ORANGE;
  pen.lineWidth = 2;
  if (!kept) pen.setLineDash([side / 5, side / 10]);
  pen.strokeRect(x - 1, y - 1, side + 2, side + 2);
  pen.setLineDash([]);
  pen.lineWidth = 1;
}

function drawScale(pen, most, width, top) {
  const long = 90, x = width - RIGHT - long - 44;
  for (let k = 0; k < long; k++) box(pen, x + k, top + 4, 1.5, 11, `rgb(${cividis[Math.round((255 * k) / long)]})`);
  text(pen, "|a|, root scale: 0", x - 6, top + 14, { size: 13, align: "right", colour: FAINT });
  text(pen, most.toPrecision(2), x + long + 6, top + 14, { size: 13, colour: FAINT });
}

function paint(canvas, header, now, pictures, atlas, width) {
  const count = columns(now.channels);
  const span = { count, start: Math.max(0, Math.min(now.channels - count, now.keep - count / 2)) };
  const height = 528 + 3 * (tileSide(now, width) + 9) + 50;
  const sharp = Math.min(3, window.devicePixelRatio || 1);
  Object.assign(canvas, { width: Math.round(width * sharp), height: Math.round(height * sharp) });
  const pen = canvas.getContext("2d"), at = slots(now, width);
  pen.scale(sharp, sharp);
  box(pen, 0, 0, width, height, "#ffffff");
  pen.imageSmoothingEnabled = false;
  pen.hatch = hatched(pen);
  drawPair(pen, header, now, pictures, 12);
  drawPredictions(pen, header, now, 286, width - 286 - RIGHT, 12);
  drawInfluence(pen, now, at, width, 226, 96);
  drawRfi(pen, now, at, width, 362, 92, span);
  drawMaps(pen, now, atlas, width, 528, span);
}

// -- the widget -----------------------------------------------------------------------------------------------------

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const fresh = (stem) => `${stem}-${Math.random().toString(36).slice(2)}`;

function select(label, name, options) {
  const id = fresh(name), input = make("select", { id, name, "aria-label": label, autocomplete: "off" },
    ...options.map(([value, words]) => make("option", { value }, words)));
  return { input, node: make("div", { class: "catchup-control" }, make("label", { for: id }, label), input) };
}

function slider() {
  const id = fresh("lam"), input = make("input", { type: "range", id, name: "lam", min: 0, max: 1, step: 0.01,
    "aria-label": "λ, the share the source keeps", autocomplete: "off" });
  const output = make("output", { for: id });
  const head = make("div", { class: "catchup-head" }, make("label", { for: id }, "λ, the share the source keeps"), output);
  return { input, output, node: make("div", { class: "catchup-control catchup-wide" }, head, input) };
}

function guarded(alarm, work) {
  return (...given) => {
    try { return work(...given); } catch (error) {
      alarm.textContent = `The inspector cannot draw this: ${error?.message ?? error}`;
      alarm.hidden = false;
    }
  };
}

function build(model, el, alarm) {
  const header = model.get("header"), arrays = decoded(header, model.get("buffer")), atlas = atlases(arrays);
  const called = ([source, partner]) => `${header.names[source]} with ${header.names[partner]}`;
  const parts = {
    pair: select("Pair", "pair", header.pairs.map((pair, k) => [k, `${k + 1}: ${called(pair)}`])),
    checkpoint: select("Checkpoint", "checkpoint", header.checkpoints.map((name) => [name, name])),
    layer: select("Layer", "layer", header.blocks.map((name) => [name, name])), lam: slider(),
  };
  const canvas = make("canvas", { role: "img" });
  const spoken = make("p", { class: "catchup-description", "aria-live": "polite" });
  const nodes = ["pair", "checkpoint", "layer", "lam"].map((name) => parts[name].node);
  el.append(make("div", { class: "catchup-strip" }, ...nodes), canvas, alarm, spoken);
  const { data: pixels, shape } = arrays("pixels"), [, high, wide] = shape;
  const pictures = Array.from({ length: shape[0] }, (_, image) => picture(wide, high,
    (i) => pixels.subarray(3 * (image * high * wide + i), 3 * (image * high * wide + i) + 3)));
  let speaking = null, count = 0;

  const draw = guarded(alarm, () => {
    const state = Object.fromEntries(Object.keys(parts).map((name) => [name, model.get(name)]));
    const now = facts(header, arrays, state), words = sentence(header, now);
    for (const name of ["pair", "layer", "checkpoint"]) parts[name].input.value = state[name];
    if (Number(parts.lam.input.value) !== state.lam) parts.lam.input.value = state.lam;
    parts.lam.output.textContent = `λ = ${state.lam.toFixed(2)}, keeps ${now.keep} of ${now.channels}`;
    parts.lam.input.setAttribute("aria-valuetext", `λ ${state.lam.toFixed(2)}, keeps ${now.keep} of ${now.channels} channels`);
    paint(canvas, header, now, pictures, atlas, Math.max(640, canvas.clientWidth || 930));
    canvas.setAttribute("aria-label", words);
    clearTimeout(speaking);
    speaking = setTimeout(() => { spoken.textContent = words; }, count ? SPEAK_MS : 0);
    canvas.dataset.drawn = count += 1;
    alarm.hidden = true;
  });
  const move = (name, value) => {
    model.set(name, value); // the change draws
    model.save_changes(); // while an answer is pending, ipywidgets keeps only the newest
  };
  parts.lam.input.addEventListener("input", () => move("lam", Number(parts.lam.input.value)));
  parts.pair.input.addEventListener("change", () => move("pair", Number(parts.pair.input.value)));
  for (const name of ["layer", "checkpoint"]) {
    parts[name].input.addEventListener("change", () => move(name, parts[name].input.value));
  }
  return { draw, canvas, end: () => clearTimeout(speaking) };
}

function render({ model, el }) {
  const alarm = make("p", { class: "catchup-error", role: "alert", hidden: "" });
  el.classList.add("catchup-inspector");
  const built = guarded(alarm, () => build(model, el, alarm))();
  if (!built) return el.append(alarm);
  // JupyterLab takes arrow keys unless this stands on the focused element itself.
  for (const node of [el, ...el.querySelectorAll("input, select")]) node.dataset.lmSuppressShortcuts = "true";
  const names = ["lam", "pair", "layer", "checkpoint"];
  names.forEach((name) => model.on(`change:${name}`, built.draw));
  let width = 0;
  const sized = new ResizeObserver(() => {
    if (built.canvas.clientWidth !== width) { width = built.canvas.clientWidth; built.draw(); }
  });
  sized.observe(built.canvas);
  built.draw();
  return () => {
    sized.disconnect();
    built.end();
    names.forEach((name) => model.off(`change:${name}`, built.draw));
  };
}

export default { render };
