// The panel of the Attention Map Viewer: a word's attention over the picture, by branch, step, layer and head.
// What the two files hold that it shows is said in realcompo_core/attention/panel.py, which writes them.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const NODE = "RealCompoAttentionMapViewer";
const PROPERTY = "attention_maps"; // of the node: where its files are
const NOTHING = "Run the workflow to see its maps.";
const ALL = "all";
const FRAMES_KEPT = 64;
const SHARPNESS = 2; // canvas pixels a CSS pixel, for a graph that is zoomed in
const GAP = 3; // CSS pixels between a caption, its picture and the legend

const viewUrl = (reference) => `/view?${new URLSearchParams(reference)}`;

/** The two files: what there is, and frames of maps, which are fetched when they are asked for. */
class Maps {
  constructor(reference, header) {
    Object.assign(this, header);
    this.source = viewUrl({ ...reference, filename: header.data });
    this.frames = new Map();
  }

  static async read(reference) {
    const reply = await api.fetchApi(viewUrl(reference));
    if (!reply.ok) throw new Error(NOTHING);
    return new Maps(reference, await reply.json());
  }

  /** `count` maps of `size` from `offset` on, one Float32Array each. */
  records(offset, count, size) {
    const kept = this.frames.get(offset);
    this.frames.delete(offset);
    const frame = kept ?? this.decoded(offset, count, size[0] * size[1]);
    this.frames.set(offset, frame); // the last one used is the last to go
    if (this.frames.size > FRAMES_KEPT) this.frames.delete(this.frames.keys().next().value);
    frame.catch(() => this.frames.delete(offset));
    return frame;
  }

  async decoded(offset, count, cells) {
    const bytes = new DataView(await this.bytes(offset, count * (4 + 2 * cells)));
    return Array.from({ length: count }, (_, record) => {
      const start = record * (4 + 2 * cells);
      const unit = bytes.getFloat32(start, true) / 65535;
      return Float32Array.from({ length: cells }, (_, i) => unit * bytes.getUint16(start + 4 + 2 * i, true));
    });
  }

  async bytes(offset, length) {
    if (!this.whole) {
      const reply = await api.fetchApi(this.source, { headers: { Range: `bytes=${offset}-${offset + length - 1}` } });
      if (!reply.ok) throw new Error(NOTHING);
      if (reply.status === 206) return reply.arrayBuffer();
      this.whole = await reply.arrayBuffer(); // a proxy that knows no ranges
    }
    return this.whole.slice(offset, offset + length);
  }

  /** The conditioning's words, then the words of each of the layout's objects together. */
  entries(branch, conditioning) {
    const { words, targets } = this.branches[branch].conditionings[conditioning];
    const seen = {};
    const entry = (kind, label, record, regions) => {
      const key = `${kind} ${label}`;
      seen[key] = (seen[key] ?? 0) + 1;
      return { key: `${key} ${seen[key]}`, kind, label, record, regions };
    };
    return [
      ...words.map(({ text, regions }, i) => entry(/^<.*>$/.test(text) ? "special" : "word", text, i, regions)),
      ...targets.map(({ label, region }, i) => entry("object", label, words.length + i, [region])),
    ];
  }

  /** The maps of all entries, or undefined where they were not recorded. `step` is that of the sampling, or "all". */
  async frame(branch, { conditioning, layer, step, head, item }) {
    const kept = this.branches[branch].conditionings[conditioning];
    const found = kept?.layers.find(({ name }) => name === layer);
    const steps = [ALL, ...(kept?.steps.map(({ index }) => index) ?? [])].indexOf(step);
    const { items } = this.branches[branch];
    if (!found || steps < 0 || head > kept.heads || item >= items) return undefined;
    const count = kept.words.length + kept.targets.length;
    const frame = (steps * (kept.heads + 1) + head) * items + item;
    const offset = found.offset + frame * count * (4 + 2 * found.size[0] * found.size[1]);
    return { size: found.size, maps: await this.records(offset, count, found.size) };
  }

  /** Like `frame`, of the branches' weights. */
  async weightFrame({ step, item }) {
    const { branches, items, steps, size, offset } = this.weights;
    const index = [ALL, ...steps].indexOf(step);
    if (index < 0 || item >= items) return undefined;
    const start = offset + (index * items + item) * branches.length * (4 + 2 * size[0] * size[1]);
    return { size, maps: await this.records(start, branches.length, size) };
  }

  /** How much of each cell lies in each region. */
  regionMaps([height, width]) {
    const { offset } = this.region_maps.find(({ size }) => size[0] === height && size[1] === width);
    return this.regions.length ? this.records(offset, this.regions.length, [height, width]) : [];
  }
}

const sum = (values) => values.reduce((total, value) => total + value, 0);
const largest = (values) => values.reduce((found, value) => Math.max(found, Math.abs(value)), 0);
const shareInside = (map, region) => sum(map.map((value, i) => value * region[i])) / (sum(map) || 1);

/** The map at another size, between whose cells it is linear. */
function resized(map, [height, width], [newHeight, newWidth]) {
  const places = (cells, newCells) =>
    Array.from({ length: newCells }, (_, i) => {
      const place = Math.min(Math.max(((i + 0.5) * cells) / newCells - 0.5, 0), cells - 1);
      const low = Math.floor(place);
      return [low, Math.min(low + 1, cells - 1), place - low];
    });
  const [rows, columns] = [places(height, newHeight), places(width, newWidth)];
  return Float32Array.from(
    rows.flatMap(([top, bottom, down]) =>
      columns.map(([left, right, across]) => {
        const [upper, lower] = [top, bottom].map(
          (row) => map[row * width + left] * (1 - across) + map[row * width + right] * across,
        );
        return upper * (1 - down) + lower * down;
      }),
    ),
  );
}

const channels = (color) => [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16));

/** Red, green and blue at `place` (0..1) between stops at even distances. */
function colorAt(stops, place) {
  const at = Math.min(Math.max(place, 0), 1) * (stops.length - 1);
  const low = Math.min(Math.floor(at), stops.length - 2);
  return stops[low].map((channel, i) => Math.round(channel + (stops[low + 1][i] - channel) * (at - low)));
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

const percent = (share) => `${(100 * share).toFixed(0)} %`;
const shortNumber = (value) => (value === 0 ? "0" : Number(value.toPrecision(2)).toString());

const STYLE = `
  :host { display: block; box-sizing: border-box; width: 100%; height: 100%; overflow: auto;
    color: var(--fg-color, #222); font: 12px/1.4 system-ui, sans-serif; }
  * { box-sizing: border-box; }
  .panel { display: flex; flex-direction: column; gap: 8px; min-height: 100%; padding: 3px; }
  [hidden] { display: none !important; }
  .message { margin: 0; padding: 24px 8px; text-align: center; color: var(--descrip-text, #777); }
  .words { display: flex; flex-wrap: wrap; gap: 4px; }
  button, select { font: inherit; color: var(--input-text, inherit); background: var(--comfy-input-bg, #eee);
    border: 1px solid var(--border-color, #999); border-radius: 4px; padding: 1px 6px; }
  button { cursor: pointer; border-bottom-width: 3px; border-bottom-color: var(--region, var(--border-color, #999)); }
  button.special { color: var(--descrip-text, #777); font-style: italic; }
  button.object { border-radius: 12px; border-width: 1px; border-color: var(--region); }
  button.object::before { content: ""; display: inline-block; width: 8px; height: 8px; margin-right: 5px;
    border-radius: 4px; background: var(--region); }
  button[aria-pressed="true"] { font-weight: 600; color: var(--comfy-menu-bg, #fff); background: var(--fg-color, #222); }
  button.shown { outline: 2px solid var(--fg-color, #222); outline-offset: 1px; }
  :focus-visible { outline: 2px solid var(--p-primary-color, #3b82f6); outline-offset: 1px; }
  .panes { display: flex; gap: 8px; flex: 1 1 0; min-height: 160px; overflow: hidden; }
  figure { display: flex; flex-direction: column; flex: 1 1 0; min-width: 0; margin: 0; gap: ${GAP}px; }
  figure > * { flex: none; }
  figcaption { overflow: hidden; white-space: nowrap; text-overflow: ellipsis; }
  canvas { display: block; margin: 0 auto; border-radius: 3px; }
  .absent { padding: 24px 8px; text-align: center; color: var(--descrip-text, #777); }
  .legend { display: flex; gap: 6px; align-items: center; color: var(--descrip-text, #777);
    font-variant-numeric: tabular-nums; white-space: nowrap; }
  .legend i { flex: 1; height: 6px; border-radius: 3px; min-width: 20px; }
  .controls { display: flex; flex-wrap: wrap; gap: 4px 14px; }
  label { display: flex; align-items: center; gap: 6px; min-width: 0; white-space: nowrap; }
  label > span { flex: 0 0 46px; }
  label.select { flex: 1 1 40%; }
  label.slider { flex: 1 1 100%; }
  select, input[type="range"] { flex: 1 1 60px; min-width: 0; }
  output { flex: 0 0 40%; overflow: hidden; text-overflow: ellipsis; font-variant-numeric: tabular-nums; }
  input { margin: 0; accent-color: var(--p-primary-color, #3b82f6); }
  table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
  caption { text-align: left; color: var(--descrip-text, #777); padding-bottom: 2px; }
  th, td { padding: 1px 6px; text-align: right; font-weight: 400; white-space: nowrap; }
  th[colspan] { text-align: center; }
  tbody tr { border-top: 1px solid var(--border-color, #999); }
  tbody th { text-align: left; padding-left: 0; }
  tr.own > * { font-weight: 600; }
  th i { display: inline-block; width: 8px; height: 8px; margin-right: 5px; border-radius: 2px; }
`;

class Panel {
  constructor() {
    const axes = { conditioning: "positive", item: 0, step: ALL, layer: ALL, head: 0 };
    this.chosen = { view: "0", ...axes, palette: "viridis", opacity: 0.6 };
    this.boxes = true;
    this.oneScale = this.smooth = false;
    this.pinned = this.hovered = undefined; // keys of entries
    this.asked = 0;
    this.element = element("div");
    this.build(this.element.attachShadow({ mode: "open" }));
    this.resizing = new ResizeObserver(() => this.paint());
    this.resizing.observe(this.panes);
  }

  build(root) {
    this.message = element("p", { class: "message", role: "status" }, NOTHING);
    this.words = element("div", {
      class: "words",
      role: "toolbar",
      "aria-label": "Words of the prompt",
      onkeydown: (event) => this.moveFocus(event),
    });
    this.panes = element("div", { class: "panes" });
    this.controls = element("div", { class: "controls" });
    this.table = element("table");
    this.content = element("div", { class: "panel", hidden: true }, this.words, this.panes, this.controls, this.table);
    root.append(element("style", {}, STYLE), this.message, this.content);
    for (const kind of ["pointerdown", "keydown"]) root.addEventListener(kind, (event) => this.keep(event));
    root.addEventListener("wheel", (event) => this.zoom(event), { passive: false });
  }

  /** The wheel zooms the graph, as elsewhere; where nodes are elements, the editor itself sees to that. */
  zoom(event) {
    const { scrollHeight, clientHeight } = this.element;
    if (LiteGraph.vueNodesMode || (scrollHeight > clientHeight && !event.ctrlKey)) return;
    event.preventDefault();
    app.canvas.processMouseWheel(event);
  }

  /** The wheel's button moves the graph. Neither other drags nor the keys of the controls are for the editor. */
  keep(event) {
    if (event.button === 1 && !LiteGraph.vueNodesMode) return app.canvas.processMouseDown(event);
    const own = event.type === "pointerdown" ? event.button === 0 : /^(Arrow|Home|End|Page|Enter| )/.test(event.key);
    if (own && !event.ctrlKey && !event.metaKey) event.stopPropagation();
  }

  say(text) {
    this.message.textContent = text;
    this.message.hidden = !text;
    this.content.hidden = Boolean(text);
  }

  /** Shows the files that the host names so; none if it names none. */
  async load(reference) {
    const name = JSON.stringify(reference ?? null);
    if (name === this.loaded) return;
    this.loaded = name;
    if (!reference) return this.say(NOTHING);
    try {
      const maps = await Maps.read(reference);
      const pictures = await Promise.all(maps.pictures.map(loadPicture));
      if (name !== this.loaded) return;
      [this.maps, this.pictures] = [maps, pictures];
      this.say("");
      this.fill();
      await this.show();
    } catch (error) {
      if (name === this.loaded) this.fail(error);
    }
  }

  /** Says what went wrong; the same files may be asked for again. */
  fail(error) {
    this.loaded = undefined;
    this.say(error.message);
  }

  /** The branches whose maps the view needs. */
  get branches() {
    const [kind, branch] = this.chosen.view.split(" ");
    if (kind === "difference") return [0, Number(branch)];
    if (kind === "beside" || kind === "weights") return this.maps.branches.map((_, i) => i);
    return [Number(kind)];
  }

  /** The branches' conditionings of the chosen name. */
  get kept() {
    return this.branches.map((i) => this.maps.branches[i].conditionings[this.chosen.conditioning]).filter(Boolean);
  }

  get entries() {
    const known = this.branches.find((i) => this.maps.branches[i].conditionings[this.chosen.conditioning]);
    return known === undefined ? [] : this.maps.entries(known, this.chosen.conditioning);
  }

  get shown() {
    const entries = this.entries;
    const named = (key) => entries.find((entry) => entry.key === key);
    return named(this.hovered) ?? named(this.pinned) ?? entries[0];
  }

  get views() {
    const names = this.maps.branches.map(({ name }) => name);
    return [
      ...names.map((name, i) => [String(i), name]),
      ...(names.length > 1 ? [["beside", "side by side"]] : []),
      ...names.slice(1).map((name, i) => [`difference ${i + 1}`, `difference: ${name} − ${names[0]}`]),
      ...(this.maps.weights ? [["weights", "coefficients"]] : []),
    ];
  }

  /** Words and controls, for what there is to choose; a choice that is gone becomes the first one. */
  fill() {
    const choose = (name, values) => {
      if (!values.includes(this.chosen[name])) this.chosen[name] = values[0];
    };
    const { maps, chosen } = this;
    choose("view", this.views.map(([value]) => value));
    const names = this.branches.flatMap((i) => Object.keys(maps.branches[i].conditionings));
    const conditionings = [...new Set(names)].sort().reverse(); // positive first
    choose("conditioning", conditionings);
    const weights = chosen.view === "weights";
    const kept = this.kept;
    const layers = [...new Set(kept.flatMap((own) => own.layers.map(({ name }) => name)))];
    const levels = new Map(kept.flatMap((own) => own.steps.map(({ index, level }) => [index, level])));
    const recorded = weights ? maps.weights.steps : [...levels.keys()].sort((a, b) => a - b);
    const steps = [ALL, ...recorded];
    const heads = Math.max(0, ...kept.map((own) => own.heads));
    const items = Math.max(...this.branches.map((i) => maps.branches[i].items));
    choose("layer", layers);
    choose("step", steps);
    choose("head", [...Array(heads + 1).keys()]);
    choose("item", [...Array(items).keys()]);
    choose("palette", Object.keys(maps.palettes));

    const size = (name) => {
      const [height, width] = kept.flatMap((own) => own.layers).find((layer) => layer.name === name).size;
      return `${width}×${height}`;
    };
    const level = (step) => (levels.has(step) ? `, noise level ${shortNumber(levels.get(step))}` : "");
    const stepText = (step) => (step === ALL ? "all, mean" : `${step}${level(step)}`);
    const layerText = (name) => (name === ALL ? "all, mean" : `${name}, ${size(name)}`);
    const numbers = (count, text) => Array.from({ length: count }, (_, i) => [i, text(i)]);
    this.controls.replaceChildren(
      ...(this.views.length > 1 ? [this.select("View", "view", this.views)] : []),
      ...(weights || conditionings.length < 2
        ? []
        : [this.select("Prompt", "conditioning", conditionings.map((name) => [name, name]))]),
      ...(items > 1 ? [this.select("Picture", "item", numbers(items, (i) => String(i + 1)))] : []),
      this.slider("Step", "step", steps, stepText),
      ...(weights ? [] : [this.slider("Layer", "layer", layers, layerText)]),
      ...(heads && !weights
        ? [this.select("Head", "head", numbers(heads + 1, (i) => (i ? String(i - 1) : "all, mean")))]
        : []),
      ...(weights || chosen.view.startsWith("difference")
        ? []
        : [this.select("Colours", "palette", Object.keys(maps.palettes).map((name) => [name, name]))]),
      this.slider("Opacity", "opacity", numbers(21, String).map(([i]) => i / 20), percent),
      ...(maps.objects.length ? [this.checkbox("Boxes", "boxes")] : []),
      this.checkbox("Smooth", "smooth"),
      ...(weights ? [] : [this.checkbox("One scale for all words", "oneScale")]),
    );
    this.fillWords();
  }

  fillWords() {
    const entries = this.entries;
    if (!entries.some(({ key }) => key === this.pinned)) {
      const first = entries.find(({ kind, regions }) => kind === "word" && regions.length);
      this.pinned = (first ?? entries.find(({ kind }) => kind === "word") ?? entries[0])?.key;
    }
    this.hovered = undefined; // of buttons that go now
    this.words.hidden = this.chosen.view === "weights";
    this.words.replaceChildren(
      ...entries.map(({ key, kind, label, regions }) => {
        const region = this.maps.regions[regions[0]];
        const show = () => this.hover(key);
        const leave = () => this.hover(undefined);
        return element(
          "button",
          {
            type: "button",
            class: kind,
            style: region && `--region: ${region.color}`,
            "data-key": key,
            "aria-label": kind === "object" ? `object ${label}, all its words` : label,
            onpointerenter: show,
            onpointerleave: leave,
            onfocus: show,
            onblur: leave,
            onclick: () => this.pin(key),
          },
          label,
        );
      }),
    );
    this.markWords();
  }

  markWords() {
    const shown = this.shown?.key;
    for (const button of this.words.children) {
      const key = button.dataset.key;
      button.classList.toggle("shown", key === shown);
      button.setAttribute("aria-pressed", String(key === this.pinned));
      button.tabIndex = key === (this.hovered ?? this.pinned) ? 0 : -1;
    }
  }

  hover(key) {
    this.hovered = key;
    this.show();
  }

  pin(key) {
    this.pinned = key;
    this.show();
  }

  moveFocus(event) {
    const buttons = [...this.words.children];
    const at = buttons.indexOf(event.target);
    const last = buttons.length - 1;
    const targets = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: last };
    if (!(event.key in targets)) return;
    event.preventDefault();
    buttons[Math.min(Math.max(targets[event.key], 0), last)].focus();
  }

  select(label, name, options) {
    const change = ({ target }) => {
      this.chosen[name] = options[target.selectedIndex][0];
      if (name === "view" || name === "conditioning") this.refill(name);
      this.show();
    };
    const select = element(
      "select",
      { name, onchange: change },
      ...options.map(([value, text]) => element("option", { value, selected: value === this.chosen[name] }, text)),
    );
    return element("label", { class: "select" }, element("span", {}, label), select);
  }

  slider(label, name, values, text) {
    const output = element("output");
    const input = element("input", { type: "range", name, min: 0, max: values.length - 1, step: 1 });
    const tell = () => {
      output.textContent = output.title = text(this.chosen[name]);
      input.setAttribute("aria-valuetext", output.textContent);
    };
    input.value = values.indexOf(this.chosen[name]);
    input.addEventListener("input", () => {
      this.chosen[name] = values[input.value];
      tell();
      this.show();
    });
    tell();
    return element("label", { class: "slider" }, element("span", {}, label), input, output);
  }

  checkbox(label, name) {
    const input = element("input", { type: "checkbox", name, checked: this[name] });
    input.addEventListener("change", () => {
      this[name] = input.checked;
      this.show();
    });
    return element("label", {}, input, label);
  }

  /** Controls and words anew; the control that was used keeps the focus. */
  refill(name) {
    this.fill();
    this.controls.querySelector(`[name=${name}]`)?.focus();
  }

  /** Draws what is chosen once its maps are there, unless something else has been chosen by then. */
  async show() {
    const asked = ++this.asked;
    this.markWords();
    try {
      const scene = this.chosen.view === "weights" ? await this.weightScene() : await this.wordScene();
      if (asked !== this.asked) return;
      this.scene = scene;
      this.place();
      this.paint();
      this.tabulate();
    } catch (error) {
      if (asked === this.asked) this.fail(error);
    }
  }

  /** Panes and columns of numbers: of one branch, of each, or of the difference of two. */
  async wordScene() {
    const { maps, chosen, shown } = this;
    const found = await Promise.all(
      this.branches.map(async (branch) => {
        const { name, conditionings } = maps.branches[branch];
        const entries = conditionings[chosen.conditioning] ? maps.entries(branch, chosen.conditioning) : [];
        const record = entries.find(({ key }) => key === shown?.key)?.record;
        const frame = await maps.frame(branch, chosen);
        if (!frame || record === undefined) {
          return { name, missing: frame ? `“${shown.label}” is not in this prompt.` : "Not recorded here." };
        }
        const words = frame.maps.filter((_, i) => entries[i].kind !== "special");
        const regions = await maps.regionMaps(frame.size);
        const own = entries.filter(({ kind }) => kind === "object");
        return {
          name,
          size: frame.size,
          map: frame.maps[record],
          top: Math.max(...words.map(largest)),
          regions,
          own: new Map(own.map((entry) => [entry.regions[0], shareInside(frame.maps[entry.record], regions[entry.regions[0]])])),
        };
      }),
    );
    const label = shown?.label ?? "";
    const present = found.filter(({ missing }) => !missing);
    const groups = present.map(({ name, map, regions, own }) => ({
      name,
      columns: [
        [`“${label}”`, regions.map((region) => shareInside(map, region))],
        ["own words", regions.map((_, i) => own.get(i)), "the share of the object's own words"],
      ],
    }));
    const areas = present[0]?.regions.map((region) => sum(region) / region.length) ?? [];
    const scene = { caption: "Share of attention inside each box", groups, areas, own: shown?.regions ?? [] };
    if (chosen.view.startsWith("difference")) {
      return { ...scene, panes: [this.differencePane(found)] };
    }
    const together = Math.max(...present.map(({ top }) => top));
    const panes = found.map(({ name, size, map, missing }) => ({
      title: name,
      missing,
      size,
      map,
      low: 0,
      high: !map || (this.oneScale && shown.kind !== "special") ? together : largest(map),
      colors: maps.palettes[chosen.palette],
      ends: [(low) => low, (high) => high],
      label: `Attention of “${label}”, branch ${name}`,
    }));
    return { ...scene, panes };
  }

  differencePane(found) {
    const [first, second] = found;
    const title = `${second.name} − ${first.name}`;
    const missing = [first, second].find((own) => own.missing);
    if (missing) return { title, missing: `${missing.name}: ${missing.missing}` };
    const size = first.size[0] * first.size[1] < second.size[0] * second.size[1] ? second.size : first.size;
    const [a, b] = [first, second].map((own) => resized(own.map, own.size, size));
    const map = b.map((value, i) => value - a[i]);
    const limit = this.oneScale && this.shown.kind !== "special" ? Math.max(first.top, second.top) : largest(map);
    return {
      title,
      size,
      map,
      low: -limit,
      high: limit,
      colors: this.maps.difference,
      ends: [(low) => `${first.name} more, ${low}`, (high) => `${high}, ${second.name} more`],
      label: `Attention of “${this.shown.label}”, ${title}`,
    };
  }

  /** Who is heard where: the weight of each branch but the first, to which the rest belongs. */
  async weightScene() {
    const { maps, chosen } = this;
    const { branches } = maps.weights;
    const frame = await maps.weightFrame(chosen);
    if (!frame) {
      return { caption: "", groups: [], areas: [], own: [], panes: [{ title: "", missing: "Not recorded here." }] };
    }
    const regions = await maps.regionMaps(frame.size);
    const shown = branches.map((name, i) => [name, frame.maps[i]]).slice(1);
    const inside = (map, region) => sum(map.map((value, i) => value * region[i])) / sum(region);
    return {
      caption: `Mean weight${shown.length > 1 ? "" : ` of ${shown[0][0]}`}`,
      groups: shown.map(([name, map]) => ({
        name,
        columns: [
          ["inside the box", regions.map((region) => inside(map, region))],
          ["outside", regions.map((region) => inside(map, region.map((value) => 1 - value)))],
        ],
      })),
      areas: regions.map((region) => sum(region) / region.length),
      own: [],
      panes: shown.map(([name, map]) => ({
        title: `weight of ${name}`,
        size: frame.size,
        map,
        low: 0,
        high: 1,
        colors: maps.difference,
        ends: [() => `0, ${branches.length > 2 ? "the others" : branches[0]} alone`, () => `${name} alone, 1`],
        label: `Weight of branch ${name}`,
      })),
    };
  }

  /** Figures for the scene's panes; their canvases are kept where their number has not changed. */
  place() {
    const { panes } = this.scene;
    if (this.panes.children.length !== panes.length) {
      const figure = () =>
        element(
          "figure",
          {},
          element("figcaption"),
          element("canvas", { role: "img" }),
          element("p", { class: "absent" }),
          element("div", { class: "legend" }, element("span"), element("i"), element("span")),
        );
      this.panes.replaceChildren(...panes.map(figure));
    }
    panes.forEach((pane, i) => {
      const figure = this.panes.children[i];
      figure.querySelector("figcaption").textContent = pane.title;
      figure.querySelector(".absent").textContent = pane.missing ?? "";
      figure.querySelector(".absent").hidden = !pane.missing;
      for (const part of ["canvas", ".legend"]) figure.querySelector(part).hidden = Boolean(pane.missing);
      if (pane.missing) return;
      figure.querySelector("canvas").setAttribute("aria-label", pane.label);
      const [low, bar, high] = figure.querySelector(".legend").children;
      bar.style.background = `linear-gradient(to right, ${pane.colors.join(", ")})`;
      low.textContent = pane.ends[0](shortNumber(pane.low));
      high.textContent = pane.ends[1](shortNumber(pane.high));
    });
  }

  paint() {
    this.scene?.panes.forEach((pane, i) => {
      if (!pane.missing && this.panes.clientHeight) this.paintPane(this.panes.children[i], pane);
    });
  }

  /** The picture, the map's cells over it, and the boxes, as large as there is room. */
  paintPane(figure, pane) {
    const picture = this.pictures[this.chosen.item];
    const [rows, columns] = pane.size;
    const aspect = picture ? picture.naturalWidth / picture.naturalHeight : columns / rows;
    const [caption, canvas, , legend] = figure.children;
    const room = this.panes.clientHeight - caption.offsetHeight - legend.offsetHeight - 2 * GAP;
    const width = Math.floor(Math.min(figure.clientWidth, room * aspect));
    const height = Math.floor(width / aspect);
    [canvas.width, canvas.height] = [width * SHARPNESS, height * SHARPNESS];
    [canvas.style.width, canvas.style.height] = [`${width}px`, `${height}px`];
    const context = canvas.getContext("2d");
    context.scale(SHARPNESS, SHARPNESS);
    if (picture) context.drawImage(picture, 0, 0, width, height);
    context.globalAlpha = picture ? this.chosen.opacity : 1;
    context.imageSmoothingEnabled = this.smooth;
    context.drawImage(cells(pane), 0, 0, width, height);
    context.globalAlpha = 1;
    if (this.boxes) for (const object of this.maps.objects) drawBox(context, object, width, height);
  }

  /** A row for each region: the columns' numbers in groups, one a branch, and the region's area. */
  tabulate() {
    const { caption, groups, areas, own } = this.scene;
    this.table.hidden = !this.maps.regions.length || !groups.length;
    if (this.table.hidden) return;
    const columns = groups.flatMap((group) => group.columns);
    const heading = (name, title, colspan) => element("th", { scope: "col", title, colspan }, name);
    const cell = (share) => element("td", {}, share === undefined ? "" : percent(share));
    this.table.replaceChildren(
      element("caption", {}, caption),
      element(
        "thead",
        {},
        ...(groups.length > 1
          ? [element("tr", {}, element("td"), ...groups.map(({ name }) => heading(name, name, 2)), element("td"))]
          : []),
        element(
          "tr",
          {},
          element("td"),
          ...columns.map(([name, , title]) => heading(name, title)),
          heading("area", "of the box: the share of an even map"),
        ),
      ),
      element(
        "tbody",
        {},
        ...this.maps.regions.map(({ label, color }, i) =>
          element(
            "tr",
            { class: own.includes(i) ? "own" : undefined },
            element("th", { scope: "row" }, element("i", { style: `background: ${color}` }), label),
            ...columns.map(([, shares]) => cell(shares[i])),
            cell(areas[i]),
          ),
        ),
      ),
    );
  }
}

/** The picture that the host names so, or null where there is none any more. */
async function loadPicture(reference) {
  if (!reference) return null;
  const picture = new Image();
  picture.src = api.apiURL(viewUrl(reference));
  return picture.decode().then(
    () => picture,
    () => null,
  );
}

/** A canvas with a pixel for each cell of the pane's map. */
function cells({ size: [height, width], map, low, high, colors }) {
  const canvas = element("canvas", { width, height });
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const stops = colors.map(channels);
  map.forEach((value, i) => image.data.set([...colorAt(stops, (value - low) / (high - low || 1)), 255], 4 * i));
  context.putImageData(image, 0, 0);
  return canvas;
}

function drawBox(context, { phrase, box, color }, width, height) {
  const [left, top, right, bottom] = box.map((edge, i) => edge * (i % 2 ? height : width));
  context.font = "11px system-ui, sans-serif";
  context.lineWidth = 2;
  context.strokeStyle = context.fillStyle = color;
  context.strokeRect(left, top, right - left, bottom - top);
  const wide = Math.min(context.measureText(phrase).width + 8, width);
  const x = Math.max(0, Math.min(left - 1, width - wide));
  const y = top >= 16 ? top - 15 : Math.min(bottom, height - 15);
  context.fillRect(x, y, wide, 15);
  const [red, green, blue] = channels(color);
  context.fillStyle = 0.299 * red + 0.587 * green + 0.114 * blue > 150 ? "black" : "white";
  context.fillText(phrase, x + 4, y + 11, wide - 8);
}

app.registerExtension({
  name: "RealCompo.AttentionMapViewer",

  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    const panel = new Panel();
    const widget = node.addDOMWidget("attention_panel", "attention_panel", panel.element, {
      serialize: false,
      hideOnZoom: false,
      getMinHeight: () => 420,
    });
    widget.serialize = false; // into the workflow; the option is for the prompt
    node.setSize([Math.max(node.size[0], 460), Math.max(node.size[1], 720)]);
    node.hideOutputImages = true; // the panel shows them; older editors draw them in onDrawBackground
    node.onDrawBackground = () => {};

    const { onExecuted, onConfigure, onRemoved } = node;
    node.onExecuted = function (output) {
      onExecuted?.apply(this, arguments);
      const reference = output?.attention?.[0];
      if (!reference) return;
      app.canvas.emitBeforeChange(); // so that the editor keeps the property when the page is reloaded
      this.properties[PROPERTY] = reference;
      app.canvas.emitAfterChange();
      panel.load(reference);
    };
    node.onConfigure = function () {
      onConfigure?.apply(this, arguments);
      const output = app.nodeOutputs?.[this.id]; // an undone change takes the property back, too
      panel.load(output?.attention?.[0] ?? this.properties[PROPERTY]);
    };
    node.onRemoved = function () {
      onRemoved?.apply(this, arguments);
      panel.resizing.disconnect();
    };
  },
});
