// Copies the browser libraries that npm installed into the package, with their licences.
import { copyFileSync, existsSync, mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const target = process.env.PENSTOCK_VENDOR ?? join(here, "..", "src", "penstock", "console", "static", "vendor");
const files = {
  "htmx.min.js": "htmx.org/dist/htmx.min.js",
  "htmx.LICENSE": "htmx.org/LICENSE",
  "sse.js": "htmx-ext-sse/sse.js",
  "uplot.js": "uplot/dist/uPlot.iife.min.js",
  "uplot.css": "uplot/dist/uPlot.min.css",
  "uplot.LICENSE": "uplot/LICENSE",
};

mkdirSync(target, { recursive: true });
for (const [name, source] of Object.entries(files)) {
  const path = join(here, "node_modules", source);
  if (!existsSync(path)) {
    console.error(`${source} is not installed: run npm ci in frontend/ first.`);
    process.exit(1);
  }
  copyFileSync(path, join(target, name));
}
