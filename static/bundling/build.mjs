// Builds static/vendor/: third-party libraries as modules that a browser loads from this server alone, with their
// versions and licences. Run by hand when a version changes (`npm ci && node build.mjs`); the result is committed.
import { build } from "esbuild";
import { cp, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import path from "node:path";
import { fileURLToPath } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));
const vendor = path.join(here, "..", "vendor");
const modules = path.join(here, "node_modules");
const options = { bundle: true, minify: true, target: "es2022", legalComments: "none", absWorkingDir: here };

await rm(vendor, { recursive: true, force: true });
await mkdir(path.join(vendor, "katex", "fonts"), { recursive: true });
// Loaded by the page.
await build({ ...options, entryPoints: ["codemirror.mjs"], format: "esm", outfile: path.join(vendor, "codemirror.js") });
// Loaded by the frame of an output, whose origin is nobody's: plain scripts, which need no CORS.
await build({ ...options, entryPoints: { marked: "marked" }, format: "iife", globalName: "marked", outdir: vendor });
await cp(path.join(modules, "katex/dist/katex.min.js"), path.join(vendor, "katex/katex.min.js"));
await cp(path.join(modules, "katex/dist/katex.min.css"), path.join(vendor, "katex/katex.min.css"));
for (const font of await readdir(path.join(modules, "katex/dist/fonts")))
  if (font.endsWith(".woff2")) await cp(path.join(modules, "katex/dist/fonts", font), path.join(vendor, "katex/fonts", font));

const lock = JSON.parse(await readFile(path.join(here, "package-lock.json"), "utf8"));
const rows = [];
const texts = [];
for (const [place, { version, license, dev, optional }] of Object.entries(lock.packages)) {
  if (!place || optional || dev || /esbuild|commander/.test(place)) continue; // tools, which are not shipped
  const name = place.replace("node_modules/", "");
  rows.push({ name, version, license });
  const files = (await readdir(path.join(here, place))).filter((file) => /^licen[cs]e/i.test(file));
  const text = files.length ? await readFile(path.join(here, place, files[0]), "utf8") : `${license}\n`;
  texts.push(`== ${name} ${version} (${license})\n\n${text.trim()}\n`);
}
await writeFile(path.join(vendor, "VERSIONS.json"), JSON.stringify(rows, null, 2) + "\n");
await writeFile(path.join(vendor, "LICENSES.txt"), texts.join("\n\n"));
for (const file of ["codemirror.js", "marked.js", "katex/katex.min.js", "katex/katex.min.css"]) {
  const data = await readFile(path.join(vendor, file));
  console.log(file.padEnd(24), `${data.length} bytes, ${gzipSync(data).length} compressed`);
}
