// Draws how something went as a line in an SVG. Pure but for the nodes it makes.

import { el } from "./dom.js";

const WIDE = 300;
const HIGH = 60;

// The `d` of the line through these values, from left to right; the highest touches `most`.
export function line(values, most) {
  const step = WIDE / Math.max(values.length - 1, 1);
  const y = (value) => (HIGH - 1 - (HIGH - 2) * (most > 0 ? Math.min(value / most, 1) : 0)).toFixed(1);
  return values.map((value, n) => `${n ? "L" : "M"}${(n * step).toFixed(1)} ${y(value)}`).join("");
}

// The least round number that is not below any of these: 1, 2 or 5 times a power of ten.
export function roof(values) {
  const most = Math.max(0, ...values);
  if (most === 0) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= most);
}

const svg = (tag, attributes) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
};

// `words` says a value as people read it.
export function plot(title, values, times, words) {
  const most = roof(values);
  const now = words(values.at(-1) ?? 0);
  const drawing = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img", "aria-label": `${title}: now ${now}, at most ${words(Math.max(0, ...values))}` });
  if (values.length > 1) {
    const d = line(values, most);
    drawing.append(svg("path", { class: "area", d: `${d}L${WIDE} ${HIGH}L0 ${HIGH}Z` }), svg("path", { d }));
  }
  const clock = (at) => (at ? new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false }) : "");
  return el("figure.plot", {}, el("figcaption", {}, title, el("b", {}, now)), drawing,
    el("small", {}, el("span", {}, clock(times[0])), el("span", {}, `up to ${words(most)}`), el("span", {}, clock(times.at(-1)))));
}
