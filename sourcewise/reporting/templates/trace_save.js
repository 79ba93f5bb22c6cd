// saveButtons(map): buttons that save a table of weights as an SVG or a PNG. map() gives {weights, rows, columns, title},
// with the names of rows and columns.
"use strict";
const saveButtons = (() => {
  const { make, makeSvg } = traceParts;
  const CELL = 24, FONT = 13, LETTER = 0.6 * FONT, NAME = 24; // pixels, and the most characters of a name
  const SMALL = 60; // columns, above which cells are narrow and not named
  const INK = "#1d1d1b", SOFT = "#5c5c57", DEEP = [0, 90, 160]; // for paper, whatever the page's own colours
  const SCALE = 2; // pixels of a PNG for one of the picture

  const cut = name => (name.length > NAME ? `${name.slice(0, NAME - 1)}…` : name);
  const longest = names => Math.max(...names.map(name => cut(name).length)) * LETTER;

  function drawn({ weights, rows, columns, title }) {
    const named = columns.length <= SMALL, wide = named ? CELL : Math.max(2, 1400 / columns.length);
    const left = longest(rows) + 20, top = (named ? longest(columns) : 0) + 50;
    const width = Math.ceil(Math.max(left + columns.length * wide + 20, title.length * LETTER + 40));
    const height = Math.ceil(top + rows.length * CELL + 20);
    const svg = makeSvg("svg", { xmlns: "http://www.w3.org/2000/svg", width, height, viewBox: `0 0 ${width} ${height}`,
      "font-family": "sans-serif", "font-size": FONT });
    const say = (text, settings) => {
      const node = makeSvg("text", { fill: INK, ...settings });
      node.textContent = text;
      svg.append(node);
    };
    svg.append(makeSvg("rect", { width, height, fill: "#ffffff" }));
    say(title, { x: 20, y: 24, fill: SOFT });
    if (named) columns.forEach((name, s) => {
      const x = left + (s + 0.5) * wide + FONT / 3, y = top - 8;
      say(cut(name), { x, y, transform: `rotate(-90 ${x} ${y})` });
    });
    rows.forEach((name, t) => {
      say(cut(name), { x: left - 8, y: top + (t + 0.5) * CELL + FONT / 3, "text-anchor": "end" });
      columns.forEach((_, s) => {
        const fill = DEEP.map(part => Math.round(255 - (255 - part) * Math.sqrt(weights[t][s]))).join(",");
        svg.append(makeSvg("rect", { x: left + s * wide, y: top + t * CELL, width: wide, height: CELL, fill: `rgb(${fill})` }));
      });
    });
    svg.append(makeSvg("rect", { x: left, y: top, width: columns.length * wide, height: rows.length * CELL, fill: "none", stroke: SOFT }));
    return svg;
  }

  const address = svg => `data:image/svg+xml;charset=utf-8,${encodeURIComponent(new XMLSerializer().serializeToString(svg))}`;

  function save(href, download) {
    make("a", { href, download }).click();
  }

  async function savePng(svg) {
    const picture = new Image(), canvas = make("canvas");
    picture.src = address(svg);
    await picture.decode();
    canvas.width = SCALE * svg.getAttribute("width");
    canvas.height = SCALE * svg.getAttribute("height");
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    save(canvas.toDataURL("image/png"), "trace.png");
  }

  return function saveButtons(map) {
    const svg = make("button", { type: "button" }, "Save these weights as SVG");
    const png = make("button", { type: "button" }, "as PNG");
    svg.addEventListener("click", () => save(address(drawn(map())), "trace.svg"));
    png.addEventListener("click", () => savePng(drawn(map())));
    return make("p", { class: "saving" }, svg, " ", png);
  };
})();
