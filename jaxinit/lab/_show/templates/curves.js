// Unpacks Bokeh, draws the curves in the page's colors, and shows those that are chosen.
const kept = new Set();
let pointed = null, figure = null;

const color = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function show() {
  const chosen = new Set(pointed === null ? kept : [...kept, pointed]);
  for (const each of figure?.renderers ?? []) {
    const here = chosen.has(each.tags[0]);
    if (each.glyph.type === "VArea") each.visible = here;
    else each.glyph.setv({line_alpha: here || !chosen.size ? 1 : .15, line_width: here ? 3.5 : 2});
  }
}

function paint() {
  const [ink, line, middle] = ["--ink", "--line", "--middle"].map(color);
  for (const each of figure.renderers) {
    const own = color(`--c${each.tags[0] % {{ colors }}}`);
    each.glyph.setv(each.glyph.type === "VArea" ? {fill_color: own} : {line_color: own});
  }
  for (const part of [...figure.below, ...figure.left, ...figure.center]) {
    if (part.type.endsWith("Axis")) part.setv({
      axis_line_color: middle, major_tick_line_color: middle, minor_tick_line_color: null,
      major_label_text_color: ink, axis_label_text_color: ink, axis_label_text_font_style: "normal",
      major_label_text_font_size: "13px", axis_label_text_font_size: "14px",
    });
    if (part.type === "Grid") part.grid_line_color = line;
    if (part.type === "Span") part.line_color = middle;
  }
}

for (const each of document.querySelectorAll("[data-curve]")) {
  const index = Number(each.dataset.curve);
  const point = to => () => { pointed = to; show(); };
  for (const name of ["pointerenter", "focus"]) each.addEventListener(name, point(index));
  for (const name of ["pointerleave", "blur"]) each.addEventListener(name, point(null));
  if (each.tagName === "BUTTON") each.addEventListener("click", () => {
    kept.delete(index) || kept.add(index);
    each.setAttribute("aria-pressed", kept.has(index));
    show();
  });
}

async function draw() {
  const bytes = Uint8Array.from(atob(packed), letter => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.text = await new Response(stream).text();
  document.head.append(script);
  Bokeh.logger.set_level("off");
  await Bokeh.embed.embed_item(plot);
  figure = Bokeh.documents[0].roots()[0];
  if (matchMedia("(pointer: coarse)").matches) figure.toolbar.active_drag = null; // a finger scrolls
  paint();
  show();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  document.documentElement.dataset.curves = "drawn";
}

// The picture stays where a browser is too old.
const frame = document.querySelector(".curves");
frame.classList.add("live");
draw().catch(() => frame.classList.remove("live"));
