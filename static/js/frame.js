// Runs inside the frame of an output, whose origin is nobody's. A plain script: modules need an origin.
"use strict";
{
  const place = document.getElementById("output");
  const tell = () => parent.postMessage({ height: place.getBoundingClientRect().height + 1 }, "*");
  new ResizeObserver(tell).observe(place);

  const loaded = new Map();
  const load = (url) => {
    if (!loaded.has(url))
      loaded.set(url, new Promise((done, failed) => {
        const node = document.createElement(url.endsWith(".css") ? "link" : "script");
        if (node.tagName === "LINK") Object.assign(node, { rel: "stylesheet", href: url });
        else node.src = url;
        node.onload = done;
        node.onerror = failed;
        document.head.append(node);
      }));
    return loaded.get(url);
  };
  const loadKatex = () => Promise.all([load("vendor/katex/katex.min.js"), load("vendor/katex/katex.min.css")]);

  const MATH = /(\$\$[\s\S]+?\$\$|\\\[[\s\S]+?\\\]|\\\([\s\S]+?\\\)|(?<![\\$\w])\$[^$\n]+?\$(?!\w))/;

  // As outputs in notebooks expect it: their scripts run, here, where there is nothing to reach.
  const showHtml = (html) => {
    place.innerHTML = html;
    for (const old of place.querySelectorAll("script")) {
      const script = document.createElement("script");
      for (const { name, value } of old.attributes) script.setAttribute(name, value);
      script.textContent = old.textContent;
      old.replaceWith(script);
    }
  };

  const formula = (text) => {
    const isDisplay = /^(\$\$|\\\[|\\begin)/.test(text);
    const body = text.replace(/^(\$\$|\$|\\\[|\\\()/, "").replace(/(\$\$|\$|\\\]|\\\))$/, "");
    return window.katex.renderToString(body, { displayMode: isDisplay, throwOnError: false, trust: false });
  };

  const escape = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

  const shows = {
    "text/html": async (text) => showHtml(text),
    "text/markdown": async (text) => {
      const formulas = [];
      await load("vendor/marked.js");
      if (MATH.test(text)) {
        await loadKatex();
        text = text.split(MATH).map((part, n) => (n % 2 ? `\u0001${formulas.push(part) - 1}\u0001` : part)).join("");
      }
      const html = window.marked.parse(text);
      showHtml(html.replace(/\u0001(\d+)\u0001/g, (_, n) => formula(formulas[n])));
    },
    "text/latex": async (text) => {
      await loadKatex();
      const parts = text.trim().split(MATH);
      place.innerHTML = parts.length === 1 ? formula(text.trim()) : parts.map((part, n) => (n % 2 ? formula(part) : escape(part))).join("");
    },
  };

  addEventListener("message", async ({ data, source }) => {
    if (source !== parent || !shows[data?.type]) return;
    document.documentElement.dataset.theme = data.isDark ? "dark" : "light";
    await shows[data.type](data.text);
    tell();
  });

  addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href]");
    if (!link || link.getAttribute("href").startsWith("#")) return;
    event.preventDefault();
    parent.postMessage({ link: link.href }, "*");
  });
}
