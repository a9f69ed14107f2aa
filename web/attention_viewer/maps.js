// Reads a recording: a JSON file that lists what was recorded, and a binary file of maps that is read in parts.
// realcompo_core/attention/panel.py writes both and describes their format.

import { api } from "../../../scripts/api.js";

export const ALL = "all"; // the layer, or the step, that is the mean over all of them
export const NO_MAPS = "Run the workflow to see its maps.";
const FRAMES_KEPT = 64;

const viewUrl = (reference) => `/view?${new URLSearchParams(reference)}`;
const recordBytes = ([height, width]) => 4 + 2 * height * width; // the largest value, then a uint16 for each cell

/** The recording that the host calls `reference`. The JSON's fields are its own; maps are fetched on demand. */
export class Maps {
  constructor(reference, header) {
    Object.assign(this, header);
    this.source = viewUrl({ ...reference, filename: header.data });
    this.frames = new Map(); // promises of frames by their offset, the least recently used first
  }

  static async read(reference) {
    const reply = await api.fetchApi(viewUrl(reference));
    if (!reply.ok) throw new Error(NO_MAPS);
    return new Maps(reference, await reply.json());
  }

  /**
   * The words of a branch's prompt, then the layout's objects, each of which stands for all words of its phrase, then
   * the phrases that the node's `words` names.
   * `record` is the number of an entry's map in a frame, `regions` are the numbers of the regions it belongs to, and
   * `key` names the same entry in another branch.
   */
  entries(branch, conditioning) {
    const { words, targets, phrases } = this.branches[branch].conditionings[conditioning];
    const seen = {};
    const entry = (kind, label, record, regions, noun = false) => {
      const key = `${kind} ${label}`;
      seen[key] = (seen[key] ?? 0) + 1;
      return { key: `${key} ${seen[key]}`, kind, label, record, regions, noun };
    };
    return [
      ...words.map(({ text, regions, noun }, i) =>
        entry(/^<.*>$/.test(text) ? "special" : "word", text, i, regions, noun),
      ),
      ...targets.map(({ label, region }, i) => entry("object", label, words.length + i, [region])),
      ...phrases.map((label, i) => entry("phrase", label, words.length + targets.length + i, [])),
    ];
  }

  /**
   * The maps of all entries as {size, maps}, or undefined where they were not recorded.
   * `layer` and `step` are the names of the recording, or "all". Head 0 is the mean over heads; single heads follow.
   */
  async frame(branch, { conditioning, layer, step, head, item }) {
    const { items, conditionings } = this.branches[branch];
    const kept = conditionings[conditioning];
    const found = kept?.layers.find(({ name }) => name === layer);
    if (!found || head > kept.heads || item >= items) return undefined;
    const steps = kept.steps.map(({ index }) => index);
    const place = stepPlace(steps, step);
    if (place < 0) return undefined;
    const number = (place * (kept.heads + 1) + head) * items + item;
    return this.frameAt(found, number, kept.words.length + kept.targets.length + kept.phrases.length);
  }

  /** The branches' weights as {size, maps}, or undefined where they were not recorded. */
  async weightFrame({ step, item }) {
    const { branches, items, steps } = this.weights;
    const place = stepPlace(steps, step);
    if (place < 0 || item >= items) return undefined;
    return this.frameAt(this.weights, place * items + item, branches.length);
  }

  /** For each region, the share of each cell that it covers. */
  async regionMaps([height, width]) {
    const kept = this.region_maps.find(({ size }) => size[0] === height && size[1] === width);
    return (await this.frameAt(kept, 0, this.regions.length)).maps;
  }

  /** Frame `number` of those that begin at `offset` and have `count` maps each. */
  async frameAt({ offset, size }, number, count) {
    const maps = count ? await this.records(offset + number * count * recordBytes(size), count, size) : [];
    return { size, maps };
  }

  /** `count` maps of `size` from `offset` on, one Float32Array each. */
  records(offset, count, size) {
    const frame = this.frames.get(offset) ?? this.decoded(offset, count, size);
    this.frames.delete(offset); // a Map keeps the order of insertion: this frame becomes the last one
    this.frames.set(offset, frame);
    if (this.frames.size > FRAMES_KEPT) this.frames.delete(this.frames.keys().next().value);
    frame.catch(() => this.frames.delete(offset));
    return frame;
  }

  async decoded(offset, count, size) {
    const length = recordBytes(size);
    const bytes = new DataView(await this.bytes(offset, count * length));
    return Array.from({ length: count }, (_, record) => {
      const start = record * length;
      const unit = bytes.getFloat32(start, true) / 65535;
      const value = (_, i) => unit * bytes.getUint16(start + 4 + 2 * i, true);
      return Float32Array.from({ length: size[0] * size[1] }, value);
    });
  }

  async bytes(offset, length) {
    if (!this.whole) {
      const reply = await api.fetchApi(this.source, { headers: { Range: `bytes=${offset}-${offset + length - 1}` } });
      if (!reply.ok) throw new Error(NO_MAPS);
      if (reply.status === 206) return reply.arrayBuffer();
      this.whole = await reply.arrayBuffer(); // a proxy that ignores ranges sends the whole file
    }
    return this.whole.slice(offset, offset + length);
  }
}

/** The place of a step's frames: the mean over all steps comes first. -1 if the step was not recorded. */
const stepPlace = (steps, step) => [ALL, ...steps].indexOf(step);

/** The picture that the host calls `reference`, or null where there is none any more. */
export async function loadPicture(reference) {
  if (!reference) return null;
  const picture = new Image();
  picture.src = api.apiURL(viewUrl(reference));
  return picture.decode().then(
    () => picture,
    () => null,
  );
}
