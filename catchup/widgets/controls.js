// A strip of native HTML controls described by the JSON of `spec`. The browser's own elements bring keys, focus and
// names for screen readers; this file only builds them and keeps them and the model in step.

const SLOW_MS = 700; // after so long without an answer the strip says that it waits
const PATIENCE_MS = 5000; // a player goes on after so long, answer or not

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const fresh = (stem) => `${stem}-${Math.random().toString(36).slice(2)}`;

function cell(kind, head, ...children) {
  return make("div", { class: `catchup-control catchup-${kind}` }, head, ...children);
}

function range(spec, change) {
  const id = fresh("range");
  const input = make("input", {
    type: "range", id, name: spec.name, "aria-label": spec.label, autocomplete: "off",
    min: spec.min, max: spec.max, step: spec.step,
  });
  const output = make("output", { for: id });
  const places = spec.texts.length;
  const place = () => Math.min(places - 1, Math.max(0, Math.round((Number(input.value) - spec.min) / spec.step)));
  const tell = () => {
    output.textContent = spec.texts[place()];
    input.setAttribute("aria-valuetext", spec.texts[place()]);
  };
  const go = (to) => {
    input.value = spec.min + to * spec.step;
    tell();
    change(spec.grid[place()]);
  };
  input.addEventListener("input", () => { tell(); change(spec.grid[place()]); });
  const head = make("div", { class: "catchup-head" }, make("label", { for: id }, spec.label), output);
  return {
    node: cell("range", head, input), places, place, go,
    show: (value) => { if (Number(input.value) !== value) input.value = value; tell(); },
    disable: (off) => { input.disabled = off.has(spec.name); },
  };
}

function select(spec, change) {
  const id = fresh("select");
  const input = make("select", { id, name: spec.name, "aria-label": spec.label, autocomplete: "off" },
    ...spec.options.map((label) => make("option", { value: label }, label)));
  input.addEventListener("change", () => change(input.value));
  return {
    node: cell("select", make("label", { for: id }, spec.label), input),
    show: (value) => { input.value = value; },
    disable: (off) => { input.disabled = off.has(spec.name); },
  };
}

function buttons(spec, press) {
  const id = fresh("buttons");
  const nodes = spec.buttons.map((name) => make("button", { type: "button", name: spec.name, value: name }, name));
  nodes.forEach((node) => node.addEventListener("click", () => press(node.value)));
  const row = make("div", { class: "catchup-row", role: "group", "aria-labelledby": id }, ...nodes);
  return {
    node: cell("buttons", make("span", { id, class: "catchup-label" }, spec.label), row),
    show: () => {},
    disable: (off) => nodes.forEach((node) => {
      node.disabled = off.has(spec.name) || off.has(`${spec.name}/${node.value}`);
    }),
  };
}

function play(spec, target, waiting) {
  let timer = null;
  const id = fresh("play");
  const button = make("button", { type: "button", name: spec.name, "aria-describedby": id });
  const face = () => {
    button.textContent = timer === null ? "▶ Play" : "❚❚ Pause";
    button.setAttribute("aria-label", `${timer === null ? "Play" : "Pause"}: ${spec.label}`);
    button.dataset.playing = String(timer !== null); // its name says what a press does; "pressed" would say it twice
  };
  const stop = () => { clearInterval(timer); timer = null; face(); };
  const tick = () => {
    if (waiting()) return; // the picture of the last step has not come yet
    if (target.place() < target.places - 1) target.go(target.place() + 1);
    if (target.place() === target.places - 1) stop();
  };
  button.addEventListener("click", () => {
    if (timer !== null) return stop();
    if (target.place() === target.places - 1) target.go(0);
    timer = setInterval(tick, spec.interval);
    face();
  });
  face();
  return {
    node: cell("play", make("span", { id, class: "catchup-label" }, spec.label), button), stop,
    show: () => {},
    disable: (off) => { button.disabled = off.has(spec.name); if (button.disabled) stop(); },
  };
}

function build(model, sent) {
  const parts = new Map();
  const change = (name) => (value) => {
    sent();
    model.set("values", { ...model.get("values"), [name]: value });
    model.set("turn", model.get("turn") + 1);
    model.save_changes(); // while an answer is pending, ipywidgets keeps only the newest
  };
  const waiting = () => model.get("turn") > model.get("drawn") && performance.now() - sent.at < PATIENCE_MS;
  const makers = {
    range: (spec) => range(spec, change(spec.name)),
    select: (spec) => select(spec, change(spec.name)),
    buttons: (spec) => buttons(spec, (button) => model.send({ press: [spec.name, button] })),
    play: (spec) => play(spec, parts.get(spec.range), waiting),
  };
  const late = (spec) => spec.kind === "play"; // a player may stand before its range, but is made after it
  const specs = model.get("spec");
  for (const spec of [...specs.filter((one) => !late(one)), ...specs.filter(late)]) {
    parts.set(spec.name, makers[spec.kind](spec));
  }
  return { parts, nodes: specs.map((spec) => parts.get(spec.name).node) };
}

function render({ model, el }) {
  const status = make("p", { class: "catchup-description", "aria-live": "polite" });
  const wait = make("span", { class: "catchup-wait", "aria-hidden": "true" }, "drawing …");
  const alarm = make("p", { class: "catchup-error", role: "alert", hidden: "" });
  const sent = () => { sent.at = performance.now(); setTimeout(busy, SLOW_MS); };
  sent.at = -Infinity;
  const { parts, nodes } = build(model, sent);
  const strip = make("div", { class: "catchup-strip" }, ...nodes, wait);
  el.classList.add("catchup-controls");
  el.append(strip, alarm, status);
  // JupyterLab takes arrow keys and Space unless this stands on the focused element itself.
  for (const node of [el, ...el.querySelectorAll("input, select, button")]) node.dataset.lmSuppressShortcuts = "true";

  function busy() {
    const slow = model.get("turn") > model.get("drawn") && performance.now() - sent.at >= SLOW_MS - 5;
    wait.classList.toggle("catchup-on", slow || model.get("busy"));
    el.setAttribute("aria-busy", String(model.get("busy")));
  }
  const values = () => Object.entries(model.get("values")).forEach(([name, value]) => parts.get(name)?.show(value));
  const disabled = () => parts.forEach((part) => part.disable(new Set(model.get("disabled"))));
  const description = () => {
    const text = model.get("description");
    status.setAttribute("aria-live", el.querySelector('[data-playing="true"]') ? "off" : "polite"); // no word per frame
    status.textContent = text;
    setTimeout(() => { // the picture beside these controls: ipywidgets gives it no alternative text
      el.closest(".widget-vbox")?.querySelectorAll("img").forEach((image) => { image.alt = text; });
    });
  };
  const error = () => {
    const stays = model.get("description") ? "\nThe picture is the last one that could be drawn." : "";
    alarm.textContent = model.get("error") + stays;
    alarm.hidden = !model.get("error");
  };
  const listeners = { values, disabled, description, error, busy, drawn: busy };
  for (const [name, listener] of Object.entries(listeners)) {
    listener();
    model.on(`change:${name}`, listener);
  }
  return () => {
    parts.forEach((part) => part.stop?.());
    for (const [name, listener] of Object.entries(listeners)) model.off(`change:${name}`, listener);
  };
}

export default { render };
