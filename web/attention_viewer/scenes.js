// What the panel shows: a scene follows from the maps, from what is chosen, and from the entry (word or object) shown.
//
// A scene has `panes`, which are drawn, and what the table of regions needs:
//   panes     a {title, missing} that says what is missing, or {title, label, size, map, low, high, colors, ends}: the
//             map's values `low` and `high` get the first and the last of `colors`, which stand at even distances;
//             `ends` are the texts at both ends of the legend
//   caption   of the table
//   groups    {name, columns}, one for each branch; a column is {name, title, values} with a share for each region,
//             or undefined where there is none
//   areas     the share of the picture that each region covers
//   own       the numbers of the entry's own regions

import { branchesOf } from "./choices.js";
import { shortNumber } from "./text.js";

const NOT_RECORDED = "Not recorded here.";

const sum = (values) => values.reduce((total, value) => total + value, 0);
const product = (map, region) => sum(map.map((value, i) => value * region[i]));
const largest = (values) => values.reduce((found, value) => Math.max(found, Math.abs(value)), 0);
const shareInside = (map, region) => product(map, region) / (sum(map) || 1);
const meanInside = (map, region) => (sum(region) ? product(map, region) / sum(region) : undefined);
const areaOf = (region) => sum(region) / region.length;

/** Reads the maps that are needed, and makes the scene of them. */
export async function readScene(maps, chosen, entry) {
  if (chosen.view === "weights") {
    const frame = await maps.weightFrame(chosen);
    return weightScene(maps, frame, frame && (await maps.regionMaps(frame.size)));
  }
  const branches = branchesOf(maps, chosen.view);
  return wordScene(
    maps,
    chosen,
    entry,
    await Promise.all(branches.map((branch) => readBranch(maps, branch, chosen, entry))),
  );
}

/** The entry's map in one branch and what it is compared with, or {name, missing} where it has none. */
async function readBranch(maps, branch, chosen, entry) {
  const { name, conditionings } = maps.branches[branch];
  const entries = conditionings[chosen.conditioning] ? maps.entries(branch, chosen.conditioning) : [];
  const frame = await maps.frame(branch, chosen);
  if (!frame) return { name, missing: NOT_RECORDED };
  const record = entries.find(({ key }) => key === entry.key)?.record;
  if (record === undefined) return { name, missing: `“${entry.label}” is not in this prompt.` };
  const regions = await maps.regionMaps(frame.size);
  const objects = entries.filter(({ kind }) => kind === "object");
  return {
    name,
    size: frame.size,
    map: frame.maps[record],
    largest: Math.max(...frame.maps.filter((_, i) => entries[i].kind !== "special").map(largest)), // of all words
    regions,
    // By the number of an object's region: the share of the attention of its words that is inside the region.
    shares: new Map(objects.map(({ record, regions: [own] }) => [own, shareInside(frame.maps[record], regions[own])])),
  };
}

/** One entry's attention in one branch, in each of them, or the difference of two. */
function wordScene(maps, chosen, entry, found) {
  const recorded = found.filter(({ missing }) => !missing);
  const regions = recorded[0]?.regions ?? [];
  return {
    panes: chosen.view.startsWith("difference")
      ? [differencePane(maps, chosen, entry, found)]
      : wordPanes(maps, chosen, entry, found),
    caption: "Share of attention inside each box",
    groups: recorded.map(({ name, map, regions, shares }) => ({
      name,
      columns: [
        { name: `“${entry.label}”`, values: regions.map((region) => shareInside(map, region)) },
        {
          name: "own words",
          title: "Share of the attention of the object's own words",
          values: regions.map((_, i) => shares.get(i)),
        },
      ],
    })),
    areas: regions.map(areaOf),
    own: entry?.regions ?? [],
  };
}

/** Special tokens draw most of the attention: they keep a scale of their own. */
const onOneScale = (chosen, entry) => chosen.oneScale && entry.kind !== "special";

function wordPanes(maps, chosen, entry, found) {
  const together = Math.max(...found.filter(({ missing }) => !missing).map((own) => own.largest));
  return found.map(({ name, size, map, missing }) => {
    if (missing) return { title: name, missing };
    const high = onOneScale(chosen, entry) ? together : largest(map);
    return {
      title: name,
      label: `Attention of “${entry.label}”, branch ${name}`,
      size,
      map,
      low: 0,
      high,
      colors: maps.palettes[chosen.palette],
      ends: ["0", shortNumber(high)],
    };
  });
}

/** The second branch's map minus the first one's, at the finer of their sizes. */
function differencePane(maps, chosen, entry, [first, second]) {
  const title = `${second.name} − ${first.name}`;
  const absent = [first, second].find(({ missing }) => missing);
  if (absent) return { title, missing: `${absent.name}: ${absent.missing}` };
  const size = first.map.length < second.map.length ? second.size : first.size;
  const [subtracted, from] = [first, second].map((own) => resized(own.map, own.size, size));
  const map = from.map((value, i) => value - subtracted[i]);
  const limit = onOneScale(chosen, entry) ? Math.max(first.largest, second.largest) : largest(map);
  return {
    title,
    label: `Attention of “${entry.label}”, ${title}`,
    size,
    map,
    low: -limit,
    high: limit,
    colors: maps.difference,
    ends: [`${first.name} more, ${shortNumber(-limit)}`, `${shortNumber(limit)}, ${second.name} more`],
  };
}

/** The weight of each branch in each cell. That of the first branch is left out: it is 1 minus the others. */
function weightScene(maps, frame, regions) {
  if (!frame) return { panes: [{ title: "", missing: NOT_RECORDED }], caption: "", groups: [], areas: [], own: [] };
  const { branches } = maps.weights;
  const shown = branches.map((name, i) => ({ name, map: frame.maps[i] })).slice(1);
  const outside = regions.map((region) => region.map((covered) => 1 - covered));
  return {
    panes: shown.map(({ name, map }) => ({
      title: `weight of ${name}`,
      label: `Weight of branch ${name}`,
      size: frame.size,
      map,
      low: 0,
      high: 1,
      colors: maps.difference,
      ends: [`0, ${branches.length > 2 ? "the others" : branches[0]} alone`, `${name} alone, 1`],
    })),
    caption: `Mean weight${shown.length > 1 ? "" : ` of ${shown[0].name}`}`,
    groups: shown.map(({ name, map }) => ({
      name,
      columns: [
        { name: "inside the box", values: regions.map((region) => meanInside(map, region)) },
        { name: "outside", values: outside.map((rest) => meanInside(map, rest)) },
      ],
    })),
    areas: regions.map(areaOf),
    own: [],
  };
}

/** The map at another size, by bilinear interpolation. */
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
