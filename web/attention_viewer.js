// Puts the panel on the Attention Map Viewer's node: attention over the picture, by word, branch, step, layer and head.

import { app } from "../../scripts/app.js";
import { Panel } from "./attention_viewer/panel.js";

const NODE = "RealCompoAttentionMapViewer";
const PROPERTY = "attention_maps"; // of the node: how the host names its recording

app.registerExtension({
  name: "RealCompo.AttentionMapViewer",

  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    const panel = new Panel(node);
    const widget = node.addDOMWidget("attention_panel", "attention_panel", panel.element, {
      serialize: false,
      hideOnZoom: false,
      getMinHeight: () => 420,
    });
    widget.serialize = false; // not saved with the workflow; the option above keeps it out of the prompt
    node.setSize([Math.max(node.size[0], 460), Math.max(node.size[1], 720)]);
    // The panel shows the picture, so the editor need not. Older editors draw it in onDrawBackground.
    node.hideOutputImages = true;
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
      // Undo may bring back a state in which the property was not set yet: what the node put out comes first.
      const output = app.nodeOutputs?.[this.id];
      panel.load(output?.attention?.[0] ?? this.properties[PROPERTY]);
      panel.follow();
    };
    node.onRemoved = function () {
      onRemoved?.apply(this, arguments);
      panel.resizing.disconnect();
    };
  },
});
