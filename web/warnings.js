// Warnings of nodes inside subgraphs, which nobody sees there: in a corner of the editor, each once a run.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const shown = new Set();

api.addEventListener("realcompo.warning", ({ detail: { prompt_id, text } }) => {
  const key = `${prompt_id} ${text}`;
  if (shown.has(key)) return;
  shown.add(key);
  app.extensionManager.toast.add({ severity: "warn", summary: "RealCompo", detail: text });
});
