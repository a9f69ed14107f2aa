// The panel's style sheet, which holds in its shadow root only. Colours are those of the editor's theme.

export const GAP = 3; // CSS pixels between a caption, its picture and the legend

export const STYLE = `
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
  button.phrase { border-radius: 12px; border-width: 1px; }
  button.object::before { content: ""; display: inline-block; width: 8px; height: 8px; margin-right: 5px;
    border-radius: 4px; background: var(--region); }
  button[aria-pressed="true"] { font-weight: 600; color: var(--comfy-menu-bg, #fff);
    background: var(--fg-color, #222); }
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
