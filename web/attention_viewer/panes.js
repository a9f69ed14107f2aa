// Draws a scene's panes: for each a figure with a caption, the map over the picture, and a legend.

import { element } from "./elements.js";
import { GAP } from "./style.js";

const SHARPNESS = 2; // canvas pixels for each CSS pixel, so that maps stay sharp in a graph that is zoomed in

/** Fills `container` with a figure for each pane. Canvases are kept as long as the number of panes is the same. */
export function place(container, panes) {
  if (container.children.length !== panes.length) container.replaceChildren(...panes.map(emptyFigure));
  panes.forEach((pane, i) => describe(container.children[i], pane));
}

function emptyFigure() {
  return element(
    "figure",
    {},
    element("figcaption"),
    element("canvas", { role: "img" }),
    element("p", { class: "absent" }),
    element("div", { class: "legend" }, element("span"), element("i"), element("span")),
  );
}

function describe(figure, { title, missing, label, colors, ends }) {
  const [caption, canvas, absent, legend] = figure.children;
  caption.textContent = title;
  absent.textContent = missing ?? "";
  absent.hidden = !missing;
  canvas.hidden = legend.hidden = Boolean(missing);
  if (missing) return;
  canvas.setAttribute("aria-label", label);
  const [low, bar, high] = legend.children;
  [low.textContent, high.textContent] = ends;
  bar.style.background = `linear-gradient(to right, ${colors.join(", ")})`;
}

/** Paints the figures that `place` made, each as large as there is room, with the layout's objects as boxes. */
export function paint(container, panes, picture, objects, chosen) {
  if (!container.clientHeight) return;
  panes.forEach((pane, i) => {
    if (!pane.missing) paintPane(container.children[i], container.clientHeight, pane, picture, objects, chosen);
  });
}

function paintPane(figure, room, pane, picture, objects, { opacity, smooth, boxes }) {
  const [rows, columns] = pane.size;
  const aspect = picture ? picture.naturalWidth / picture.naturalHeight : columns / rows;
  const [caption, canvas, , legend] = figure.children;
  const most = room - caption.offsetHeight - legend.offsetHeight - 2 * GAP;
  const width = Math.floor(Math.min(figure.clientWidth, most * aspect));
  const height = Math.floor(width / aspect);
  [canvas.width, canvas.height] = [width * SHARPNESS, height * SHARPNESS];
  [canvas.style.width, canvas.style.height] = [`${width}px`, `${height}px`];
  const context = canvas.getContext("2d");
  context.scale(SHARPNESS, SHARPNESS);
  if (picture) context.drawImage(picture, 0, 0, width, height);
  context.globalAlpha = picture ? opacity : 1;
  context.imageSmoothingEnabled = smooth;
  context.drawImage(cells(pane), 0, 0, width, height);
  context.globalAlpha = 1;
  if (boxes) for (const object of objects) drawBox(context, object, width, height);
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

const channels = (color) => [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16)); // of "#rrggbb"

/** Red, green and blue at `place` (0..1) between stops at even distances. */
function colorAt(stops, place) {
  const at = Math.min(Math.max(place, 0), 1) * (stops.length - 1);
  const low = Math.min(Math.floor(at), stops.length - 2);
  return stops[low].map((channel, i) => Math.round(channel + (stops[low + 1][i] - channel) * (at - low)));
}

/** An object's box, with its phrase above it, or below where there is no room. */
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
