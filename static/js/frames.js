// The page's side of a frame for what may carry code. The frame has an opaque origin and may load nothing but its own
// scripts; it says how high it is and which link was clicked, and neither is believed further than a number and a URL.

import { el } from "./dom.js";

const MAX_HEIGHT = 2000; // pixels; what is higher scrolls
const MAX_TEXT = 8 << 20;
const frames = new Map(); // window -> Frame

addEventListener("message", (event) => frames.get(event.source)?.heard(event.data));

export class Frame {
  constructor() {
    this.iframe = el("iframe.frame", {
      sandbox: "allow-scripts", src: "static/frame.html", title: "Output", loading: "eager", referrerpolicy: "no-referrer",
    });
    this.links = el("div.links", { role: "status" });
    this.node = el("div", {}, this.iframe, this.links);
    this.isReady = false;
    this.window = null;
    this.iframe.addEventListener("load", () => {
      const { contentWindow } = this.iframe;
      // What is moved on the page begins anew, in another window; what is led elsewhere keeps its window.
      if (contentWindow === this.window) return this.#turnedAway();
      for (const [window, frame] of frames) if (frame === this || !frame.iframe.isConnected) frames.delete(window);
      this.window = contentWindow;
      frames.set(contentWindow, this);
      this.isReady = true;
      this.#send();
    });
  }

  show(type, text) {
    this.shown = { type, text: text.slice(0, MAX_TEXT) };
    if (this.isReady) this.#send();
  }

  #send() {
    const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
    if (this.shown) this.iframe.contentWindow.postMessage({ ...this.shown, isDark }, "*");
  }

  // What it shows has led it somewhere else.
  #turnedAway() {
    frames.delete(this.window);
    this.iframe.replaceWith(el("p.notice", {}, "This output tried to leave its frame, and was closed."));
  }

  heard(data) {
    if (typeof data?.height === "number" && data.height >= 0)
      this.iframe.style.height = `${Math.min(Math.ceil(data.height), MAX_HEIGHT)}px`;
    if (typeof data?.link === "string" && /^https?:\/\//.test(data.link) && data.link.length < 2000)
      this.links.replaceChildren("Open ", el("a", { href: data.link, target: "_blank", rel: "noopener noreferrer" }, data.link), "?");
  }
}
