// The table below the panes: a row for each region.

import { element } from "./elements.js";
import { percent } from "./text.js";

/** Fills `table` with the scene's columns, grouped by branch, and with each region's area; hides it without either. */
export function tabulate(table, { caption, groups, areas, own }, regions) {
  table.hidden = !regions.length || !groups.length;
  if (table.hidden) return;
  const columns = groups.flatMap((group) => group.columns);
  const row = ({ label, color }, i) =>
    element(
      "tr",
      { class: own.includes(i) ? "own" : undefined },
      element("th", { scope: "row" }, element("i", { style: `background: ${color}` }), label),
      ...[...columns.map(({ values }) => values[i]), areas[i]].map(cell),
    );
  table.replaceChildren(
    element("caption", {}, caption),
    element("thead", {}, ...(groups.length > 1 ? [branchRow(groups)] : []), columnRow(columns)),
    element("tbody", {}, ...regions.map(row)),
  );
}

const heading = (name, title, colspan) => element("th", { scope: "col", title, colspan }, name);
const cell = (share) => element("td", {}, share === undefined ? "" : percent(share));

const branchRow = (groups) =>
  element(
    "tr",
    {},
    element("td"),
    ...groups.map(({ name, columns }) => heading(name, name, columns.length)),
    element("td"),
  );

const columnRow = (columns) =>
  element(
    "tr",
    {},
    element("td"),
    ...columns.map(({ name, title }) => heading(name, title)),
    heading("area", "Share of the picture that the box covers, which is also the share of an even map inside it"),
  );
