// What a recording offers to choose from. `chosen` has one value for each name in FIRST.

import { ALL } from "./maps.js";
import { percent, shortNumber } from "./text.js";

/** What is chosen at first, where the recording has it. */
export const FIRST = {
  view: "0", // a branch's number, "beside", "difference" with the second branch's number, or "weights"
  conditioning: "positive",
  item: 0,
  step: ALL,
  layer: ALL,
  head: 0,
  palette: "viridis",
  opacity: 0.6,
  boxes: true,
  smooth: false,
  oneScale: false,
};

/** The numbers of the branches that a view shows. */
export function branchesOf(maps, view) {
  const [kind, branch] = view.split(" ");
  if (kind === "difference") return [0, Number(branch)];
  if (kind === "beside" || kind === "weights") return maps.branches.map((_, i) => i);
  return [Number(kind)];
}

/** The words and objects to choose from: those of the first shown branch that has the chosen prompt. */
export function entriesOf(maps, { view, conditioning }) {
  const branch = branchesOf(maps, view).find((i) => maps.branches[i].conditionings[conditioning]);
  return branch === undefined ? [] : maps.entries(branch, conditioning);
}

/** The entry to begin with: the first of the node's `words`, else a noun, that of an object if there are any. */
export function firstOf(entries) {
  const words = entries.filter(({ kind }) => kind === "word");
  return (
    entries.find(({ kind }) => kind === "phrase") ??
    words.find(({ noun, regions }) => noun && regions.length) ??
    words.find(({ noun }) => noun) ??
    words[0] ??
    entries[0]
  );
}

/** What was recorded of the chosen prompt, for each shown branch that has it. */
const recordings = (maps, { view, conditioning }) =>
  branchesOf(maps, view)
    .map((i) => maps.branches[i].conditionings[conditioning])
    .filter(Boolean);

const numbered = (count, text) => Array.from({ length: count }, (_, i) => [i, text(i)]);

/** The options, and the chosen value too where the node's widget has one that was not recorded. */
const withChosen = (options, value, text) =>
  options.some(([own]) => own === value) ? options : [...options, [value, `${text}, not recorded`]];

/**
 * The options of each control, as pairs of a value and its text. Each function takes the maps and what is chosen, and
 * looks only at choices that are listed before its own.
 */
export const OPTIONS = {
  view({ branches, weights }) {
    const names = branches.map(({ name }) => name);
    return [
      ...names.map((name, i) => [String(i), name]),
      ...(names.length > 1 ? [["beside", "side by side"]] : []),
      ...names.slice(1).map((name, i) => [`difference ${i + 1}`, `difference: ${name} − ${names[0]}`]),
      ...(weights ? [["weights", "weights"]] : []),
    ];
  },

  conditioning(maps, { view }) {
    const names = branchesOf(maps, view).flatMap((i) => Object.keys(maps.branches[i].conditionings));
    return [...new Set(names)]
      .sort()
      .reverse() // the positive prompt first
      .map((name) => [name, name]);
  },

  item(maps, { view }) {
    const items = Math.max(...branchesOf(maps, view).map((i) => maps.branches[i].items));
    return numbered(items, (i) => String(i + 1));
  },

  step(maps, chosen) {
    const recorded = recordings(maps, chosen).flatMap(({ steps }) => steps);
    const levels = new Map(recorded.map(({ index, level }) => [index, level]));
    const steps = chosen.view === "weights" ? maps.weights.steps : [...levels.keys()].sort((a, b) => a - b);
    const level = (step) => (levels.has(step) ? `, noise level ${shortNumber(levels.get(step))}` : "");
    const options = [[ALL, "all, mean"], ...steps.map((step) => [step, `${step}${level(step)}`])];
    return withChosen(options, chosen.step, chosen.step);
  },

  layer(maps, chosen) {
    const texts = new Map();
    for (const { name, size } of recordings(maps, chosen).flatMap(({ layers }) => layers)) {
      if (!texts.has(name)) texts.set(name, name === ALL ? "all, mean" : `${name}, ${size[1]}×${size[0]}`);
    }
    return withChosen([...texts], chosen.layer, chosen.layer);
  },

  head(maps, chosen) {
    const heads = Math.max(0, ...recordings(maps, chosen).map((own) => own.heads));
    const options = numbered(heads + 1, (i) => (i ? String(i - 1) : "all, mean"));
    return withChosen(options, chosen.head, chosen.head - 1);
  },

  palette: ({ palettes }) => Object.keys(palettes).map((name) => [name, name]),

  opacity(maps, { opacity }) {
    const shares = new Set([...Array.from({ length: 21 }, (_, i) => i / 20), opacity]);
    return [...shares].sort((a, b) => a - b).map((share) => [share, percent(share)]);
  },
};

/** What is chosen, with the first option in the place of each choice that these maps do not offer. */
export function settled(maps, chosen) {
  const found = { ...chosen };
  for (const [name, options] of Object.entries(OPTIONS)) {
    const values = options(maps, found).map(([value]) => value);
    if (!values.includes(found[name])) found[name] = values[0];
  }
  return found;
}
