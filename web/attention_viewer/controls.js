// Controls below the panes. Each shows a value and calls `choose` with a new one. Options are [value, text].

import { element } from "./elements.js";

export function select(label, name, options, value, choose) {
  const made = element(
    "select",
    { name, onchange: () => choose(options[made.selectedIndex][0]) },
    ...options.map(([own, text]) => element("option", { value: own, selected: own === value }, text)),
  );
  return element("label", { class: "select" }, element("span", {}, label), made);
}

export function slider(label, name, options, value, choose) {
  const output = element("output");
  const input = element("input", { type: "range", name, min: 0, max: options.length - 1, step: 1 });
  const tell = () => {
    output.textContent = output.title = options[input.value][1];
    input.setAttribute("aria-valuetext", output.textContent);
  };
  input.value = options.findIndex(([own]) => own === value);
  input.addEventListener("input", () => {
    tell();
    choose(options[input.value][0]);
  });
  tell();
  return element("label", { class: "slider" }, element("span", {}, label), input, output);
}

export function checkbox(label, name, checked, choose) {
  const input = element("input", { type: "checkbox", name, checked, onchange: () => choose(input.checked) });
  return element("label", {}, input, label);
}
