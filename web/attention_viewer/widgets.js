// The node's widgets, which the panel shows and changes: what is chosen here is what the next run draws.

import { app } from "../../../scripts/app.js";
import { ALL } from "./maps.js";

const same = { read: (value) => value, write: (value) => value };
const orAll = (none) => ({
  read: (value) => (value === none ? ALL : value),
  write: (value) => (value === ALL ? none : value),
});

/**
 * By the name of a choice (see FIRST): its widget, the choice that a value of the widget means in these maps, and the
 * value to write for a choice; undefined for a choice that the widget cannot express.
 */
const SHARED = {
  view: {
    widget: "branch",
    read: (name, { branches }) => String(Math.max(0, branches.findIndex((branch) => branch.name === name))),
    write: (view, { branches }) => (view === "0" ? "" : branches[view]?.name),
  },
  conditioning: { widget: "conditioning", ...same },
  layer: { widget: "layer", ...orAll("") },
  step: { widget: "step", ...orAll(-1) },
  head: { widget: "head", read: (head) => head + 1, write: (head) => head - 1 },
  palette: { widget: "palette", ...same },
  opacity: { widget: "opacity", ...same },
  oneScale: {
    widget: "normalise",
    read: (value) => value === "together",
    write: (checked) => (checked ? "together" : "each"),
  },
};

export class Widgets {
  /** `changed` is called when the user has changed one of them. */
  constructor(node, changed) {
    this.node = node;
    this.seen = {}; // their values when they were last read or written
    for (const { widget: name } of Object.values(SHARED)) {
      const widget = this.named(name);
      const { callback } = widget;
      widget.callback = function () {
        const result = callback?.apply(this, arguments);
        changed();
        return result;
      };
    }
  }

  named(name) {
    return this.node.widgets.find((widget) => widget.name === name);
  }

  /** The widget, unless a wire gives its value: what it shows is not what the node runs with then. */
  own(name) {
    const wired = this.node.inputs?.some((input) => input.widget?.name === name && input.link != null);
    return wired ? undefined : this.named(name);
  }

  /** What the widgets say now that they did not say when they were last read. */
  news(maps) {
    const found = {};
    for (const [choice, { widget: name, read }] of Object.entries(SHARED)) {
      const widget = this.own(name);
      if (!widget || widget.value === this.seen[name]) continue;
      this.seen[name] = widget.value;
      found[choice] = read(widget.value, maps);
    }
    return found;
  }

  write(choice, value, maps) {
    const shared = SHARED[choice];
    const widget = shared && this.own(shared.widget);
    const written = shared?.write(value, maps);
    if (!widget || written === undefined) return;
    this.seen[shared.widget] = written;
    if (widget.value === written) return;
    widget.value = written;
    widget.callback?.(written, app.canvas, this.node); // as for the user: some editors follow this alone
    this.node.setDirtyCanvas(true);
  }
}
