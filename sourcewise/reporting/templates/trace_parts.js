// What the parts of a trace's page are made with. No text of a user becomes markup.
"use strict";
const traceParts = (() => {
  function make(tag, settings = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(settings)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }
  function makeSvg(tag, settings) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(settings)) node.setAttribute(name, value);
    return node;
  }
  const note = (text, tag = "p") => make(tag, { class: "note" }, text);
  const heading = (title, ...more) => make("h3", {}, title, " ", ...more);
  const upTo = count => [...Array(count).keys()];
  const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
  const percent = share => (share > 0 && share < 0.005 ? "< 1 %" : `${Math.round(100 * share)} %`);
  const isSpecial = text => /^<[^<>]+>$/.test(text);
  const beginsWord = text => /^\s/.test(text) || isSpecial(text);
  const shown = text => text.trim().replaceAll("▁", "␣").replaceAll("\n", "⏎") || (text.includes("\n") ? "⏎" : "␣");
  const plain = text => (isSpecial(text) ? "" : text.replaceAll("▁", " "));
  const tokenText = text => make("span", { class: isSpecial(text) ? "text special" : "text" }, shown(text));

  const minus = figure => figure.replace("-", "−");
  const bitsText = bits => (bits === null ? "–" : minus((Math.abs(bits) < 0.05 ? 0 : bits).toFixed(1)));
  const framesName = (start, stop) => (stop - start === 1 ? `frame ${start}` : `frames ${start}–${stop - 1}`);
  const ordinal = n => n + (n % 100 > 10 && n % 100 < 14 ? "th" : ["th", "st", "nd", "rd"][n % 10] ?? "th");
  // Names of the slots (memory positions); equal texts are numbered.
  function slotNames(slots) {
    const names = slots.map(slotName), count = new Map(), seen = new Map();
    names.forEach(name => count.set(name, (count.get(name) ?? 0) + 1));
    return names.map(name => {
      seen.set(name, (seen.get(name) ?? 0) + 1);
      return count.get(name) > 1 ? `${name} (${ordinal(seen.get(name))})` : name;
    });
  }
  function slotName(slot, number) {
    if (slot.kind === "latent") return `latent ${number + 1}`;
    if (slot.kind === "other") return `position ${number + 1}`;
    if (slot.kind !== "frames") return shown(slot.text);
    return framesName(...slot.frames);
  }

  // (layer, head) → weights, rows × columns; averaged over all where one is null.
  function weightReader({ layers, heads, unit, weights }) {
    const kept = new Map();
    return (layer, head) => {
      const key = `${layer},${head}`;
      if (!kept.has(key)) {
        const chosen = (layer === null ? upTo(layers) : [layer]).flatMap(l =>
          (head === null ? upTo(heads) : [head]).map(h => weights[l][h]));
        kept.set(key, chosen[0].map((row, t) => row.map((_, s) =>
          unit * chosen.reduce((sum, w) => sum + w[t][s], 0) / chosen.length)));
      }
      return kept.get(key);
    };
  }

  // A matrix in one colour of the page: its values, 0 to 1, are how opaque a point is.
  function paint(canvas, rows, colour) {
    canvas.width = rows[0].length;
    canvas.height = rows.length;
    const context = canvas.getContext("2d");
    context.fillStyle = getComputedStyle(canvas).getPropertyValue(colour);
    rows.forEach((row, y) => row.forEach((value, x) => {
      context.globalAlpha = Math.min(1, Math.max(0, value));
      context.fillRect(x, y, 1, 1);
    }));
  }

  // A token behind others of its row; a gap where it begins a word.
  function addToken(row, node, text) {
    if (beginsWord(text) && row.lastChild) row.lastChild.classList.add("gap");
    row.append(node);
  }

  return { make, makeSvg, note, heading, upTo, counted, percent, isSpecial, shown, plain, tokenText, minus, bitsText, framesName,
    ordinal, slotNames, weightReader, paint, addToken };
})();
