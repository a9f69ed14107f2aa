// The panel: a toolbar of words, the panes, controls and the table. It holds what is chosen, and shows its scene.

import { app } from "../../../scripts/app.js";
import { entriesOf, FIRST, firstOf, OPTIONS, settled } from "./choices.js";
import { checkbox, select, slider } from "./controls.js";
import { element } from "./elements.js";
import { loadPicture, Maps, NO_MAPS } from "./maps.js";
import { paint, place } from "./panes.js";
import { readScene } from "./scenes.js";
import { STYLE } from "./style.js";
import { tabulate } from "./table.js";
import { Widgets } from "./widgets.js";

const NAMES = { object: (label) => `object ${label}, all its words`, phrase: (label) => `phrase ${label}` };

export class Panel {
  constructor(node) {
    this.chosen = { ...FIRST };
    this.widgets = new Widgets(node, () => this.follow());
    this.pinned = this.hovered = undefined; // keys of entries
    this.asked = 0; // how often a scene was asked for
    this.element = element("div");
    this.build(this.element.attachShadow({ mode: "open" }));
    this.resizing = new ResizeObserver(() => this.paint());
    this.resizing.observe(this.panes);
  }

  build(root) {
    this.message = element("p", { class: "message", role: "status" }, NO_MAPS);
    this.words = element("div", {
      class: "words",
      role: "toolbar",
      "aria-label": "Words of the prompt",
      onkeydown: (event) => this.moveFocus(event),
    });
    this.panes = element("div", { class: "panes" });
    this.controls = element("div", { class: "controls", onchange: () => this.remember() });
    this.table = element("table");
    this.content = element("div", { class: "panel", hidden: true }, this.words, this.panes, this.controls, this.table);
    root.append(element("style", {}, STYLE), this.message, this.content);
    for (const kind of ["pointerdown", "keydown"]) root.addEventListener(kind, (event) => this.keep(event));
    root.addEventListener("wheel", (event) => this.zoom(event), { passive: false });
  }

  /** The wheel zooms the graph, as it does elsewhere. Where nodes are elements of the page, the editor sees to it. */
  zoom(event) {
    const { scrollHeight, clientHeight } = this.element;
    if (LiteGraph.vueNodesMode || (scrollHeight > clientHeight && !event.ctrlKey)) return;
    event.preventDefault();
    app.canvas.processMouseWheel(event);
  }

  /** The middle button moves the graph. Other drags and the keys of the controls are kept from the editor. */
  keep(event) {
    if (event.button === 1 && !LiteGraph.vueNodesMode) return app.canvas.processMouseDown(event);
    const own = event.type === "pointerdown" ? event.button === 0 : /^(Arrow|Home|End|Page|Enter| )/.test(event.key);
    if (own && !event.ctrlKey && !event.metaKey) event.stopPropagation();
  }

  /** Shows a text in the place of the maps, or the maps if it is empty. */
  say(text) {
    this.message.textContent = text;
    this.message.hidden = !text;
    this.content.hidden = Boolean(text);
  }

  /** Shows the recording that the host calls `reference`; without one, says that the workflow has to run. */
  async load(reference) {
    const name = JSON.stringify(reference ?? null);
    if (name === this.loaded) return;
    this.loaded = name;
    if (!reference) return this.say(NO_MAPS);
    try {
      const maps = await Maps.read(reference);
      const pictures = await Promise.all(maps.pictures.map(loadPicture));
      if (name !== this.loaded) return;
      if (JSON.stringify(maps.phrases) !== JSON.stringify(this.maps?.phrases)) this.pinned = undefined;
      [this.maps, this.pictures] = [maps, pictures];
      Object.assign(this.chosen, this.widgets.news(maps));
      this.say("");
      this.fill();
      await this.show();
    } catch (error) {
      if (name === this.loaded) this.fail(error);
    }
  }

  /** Says what went wrong. The same recording can be loaded again afterwards. */
  fail(error) {
    this.loaded = undefined;
    this.say(error.message);
  }

  /** Shows what the node's widgets say. */
  follow() {
    if (!this.maps) return;
    const news = this.widgets.news(this.maps);
    if (!Object.keys(news).length) return;
    Object.assign(this.chosen, news);
    this.fill();
    this.show();
  }

  /** The editor notes the widgets that the panel has changed, for undo and for the saved workflow. */
  remember() {
    app.canvas.emitBeforeChange();
    app.canvas.emitAfterChange();
  }

  get entries() {
    return entriesOf(this.maps, this.chosen);
  }

  /** The entry that is shown: the one under the mouse or with the focus, else the one that was clicked. */
  get shown() {
    const entries = this.entries;
    const named = (key) => entries.find((entry) => entry.key === key);
    return named(this.hovered) ?? named(this.pinned) ?? entries[0];
  }

  /** Makes controls and words for what there is to choose. */
  fill() {
    this.chosen = settled(this.maps, this.chosen);
    const { maps, chosen } = this;
    const weights = chosen.view === "weights";
    const difference = chosen.view.startsWith("difference");
    const control = (make, label, name) =>
      make(label, name, OPTIONS[name](maps, chosen), chosen[name], (value) => this.choose(name, value));
    const choice = (label, name) => (OPTIONS[name](maps, chosen).length > 1 ? [control(select, label, name)] : []);
    const box = (label, name) => checkbox(label, name, chosen[name], (value) => this.choose(name, value));
    this.controls.replaceChildren(
      ...choice("View", "view"),
      ...(weights ? [] : choice("Prompt", "conditioning")),
      ...choice("Picture", "item"),
      control(slider, "Step", "step"),
      ...(weights ? [] : [control(slider, "Layer", "layer"), ...choice("Head", "head")]),
      ...(weights || difference ? [] : choice("Colours", "palette")),
      control(slider, "Opacity", "opacity"),
      ...(maps.objects.length ? [box("Boxes", "boxes")] : []),
      box("Smooth", "smooth"),
      ...(weights ? [] : [box("One scale for all words", "oneScale")]),
    );
    this.fillWords();
  }

  choose(name, value) {
    this.chosen[name] = value;
    this.widgets.write(name, value, this.maps);
    if (name === "view" || name === "conditioning") {
      this.fill(); // they decide what else there is to choose
      this.controls.querySelector(`[name=${name}]`)?.focus();
    }
    this.show();
  }

  fillWords() {
    const entries = this.entries;
    if (!entries.some(({ key }) => key === this.pinned)) {
      this.pinned = firstOf(entries)?.key;
    }
    this.hovered = undefined; // its button goes now
    this.words.hidden = this.chosen.view === "weights";
    const named = entries.filter(({ kind }) => kind === "phrase");
    const others = entries.filter(({ kind }) => kind !== "phrase");
    this.words.replaceChildren(...[...named, ...others].map((entry) => this.wordButton(entry)));
    this.markWords();
  }

  wordButton({ key, kind, label, regions }) {
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
        "aria-label": NAMES[kind]?.(label) ?? label,
        onpointerenter: show,
        onpointerleave: leave,
        onfocus: show,
        onblur: leave,
        onclick: () => this.pin(key),
      },
      label,
    );
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

  /** Shows the scene of what is chosen once its maps are there, unless another one has been asked for by then. */
  async show() {
    const asked = ++this.asked;
    this.markWords();
    try {
      const scene = await readScene(this.maps, this.chosen, this.shown);
      if (asked !== this.asked) return;
      this.scene = scene;
      place(this.panes, scene.panes);
      this.paint();
      tabulate(this.table, scene, this.maps.regions);
    } catch (error) {
      if (asked === this.asked) this.fail(error);
    }
  }

  paint() {
    if (!this.scene) return;
    paint(this.panes, this.scene.panes, this.pictures[this.chosen.item], this.maps.objects, this.chosen);
  }
}
