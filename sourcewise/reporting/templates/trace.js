// drawTrace(element, data, more) draws one trace; data is as docs/trace.md describes it. `more` is what a page with a
// server offers beside: askWhatIf() gives data with `what_if`, change(part) lets the reader change a part of the source.
"use strict";
const drawTrace = (() => {
  const LONG = 150; // slots (memory positions): a longer source scrolls in a frame of its own
  const { make, makeSvg, note, heading, upTo, counted, percent, isSpecial, shown, plain, tokenText, minus, bitsText,
    slotNames, weightReader, paint, addToken } = traceParts;
  let drawn = 0; // traces on this page: their ids must differ

  // The source: chips for tokens and latents; for frames a strip over their picture.
  function drawSource(data, painters) {
    const { slots, features, unread } = data.source;
    const chips = make("div", { class: "tokens source", dir: "auto", role: "group", "aria-label": "Source" });
    const strip = make("div", { class: "strip", "aria-hidden": "true" });
    const nodes = slots.map((slot, number) => {
      if (slot.kind === "frames") {
        const bar = make("span", { class: "weight" }, make("span", { class: "figure" }));
        const node = make("span", { class: "slot" }, bar);
        node.style.left = `${100 * slot.frames[0] / features.frames}%`;
        node.style.width = `${100 * (slot.frames[1] - slot.frames[0]) / features.frames}%`;
        strip.append(node);
        return node;
      }
      const text = slot.text ? tokenText(slot.text) : make("span", { class: "text" }, String(number + 1));
      const node = make("span", { class: "slot token" }, text, make("span", { class: "figure" }));
      addToken(chips, node, slot.text);
      return node;
    });
    const parts = nodes.some(node => node.parentNode === chips) ? [chips] : [];
    if (nodes.length > LONG) {
      chips.classList.add("long");
      chips.tabIndex = 0;
    }
    if (features) {
      const told = `The source: ${counted(features.frames, "frame")} of ${counted(features.dims, "value")}`;
      const picture = make("canvas", { class: "picture", role: "img", "aria-label": told });
      painters.push(() => paint(picture, features.rows.map(row => row.map(grey => grey / 255)), "--ink"));
      const film = make("div", { class: strip.childNodes.length ? "film" : "film plain" }, picture, strip);
      const wide = `max(24rem, ${9 * features.frames / features.dims}rem)`; // points of a small matrix stay square
      const turn = make("button", { type: "button", title: "Turn the picture upside down" });
      const name = () => { turn.textContent = `value 0 at the ${picture.classList.contains("turned") ? "bottom" : "top"} ⇅`; };
      turn.addEventListener("click", () => { picture.classList.toggle("turned"); name(); });
      name();
      const ends = [make("span", {}, "frame 0"), turn, make("span", {}, String(features.frames - 1))];
      const axis = make("p", { class: "axis note" }, ...ends);
      for (const part of [film, axis]) part.style.maxWidth = wide;
      parts.push(film, axis);
    }
    if (slots.some(slot => slot.kind === "latent"))
      parts.push(note("The numbers are latents. Each has read all frames: from which a token was read is unknown."));
    if (unread) parts.push(note(`Cut to fit: ${counted(unread, features ? "frame" : "token")} not read.`));
    return { parts, nodes, chips };
  }

  function drawTarget(data, id, choose) {
    const list = make("div", { class: "tokens target", role: "listbox", "aria-orientation": "horizontal",
      "aria-label": "Target tokens; arrow keys choose one", dir: "auto" });
    const nodes = data.steps.map((step, t) => {
      const madeUp = step.bits !== null && step.bits < data.source_bits.none_below;
      const name = `${shown(step.text)}, ${madeUp ? "no source used" : `source bits ${bitsText(step.bits)}`}`;
      const node = make("div", { id: `${id}-${t}`, class: madeUp ? "token made-up" : "token", role: "option",
        "aria-label": name }, tokenText(step.text), make("span", { class: "figure" }, bitsText(step.bits)));
      node.addEventListener("click", () => choose(t));
      addToken(list, node, step.text);
      return node;
    });
    list.addEventListener("keydown", event => {
      const now = nodes.indexOf(document.activeElement);
      const forward = getComputedStyle(list).direction === "rtl" ? -1 : 1;
      const moves = { ArrowLeft: now - forward, ArrowRight: now + forward, Home: 0, End: nodes.length - 1 };
      if (!(event.key in moves)) return;
      event.preventDefault();
      choose(Math.max(0, Math.min(nodes.length - 1, moves[event.key])));
    });
    return { list, nodes };
  }

  // One small picture per head, one row per layer; a click chooses one, another click all again. The keyboard has
  // the two lists for that.
  function drawHeads(data, read, toggle, painters) {
    const { layers, heads, averaged } = data.attention;
    const grid = make("div", { class: "heads", role: "group", "aria-label": "Layers and heads" });
    grid.style.setProperty("--heads", heads);
    grid.style.setProperty("--steps", data.steps.length);
    const tiles = [];
    for (const layer of upTo(layers)) {
      grid.append(note(`layer ${layer + 1}`, "span"));
      for (const head of upTo(heads)) {
        const name = `layer ${layer + 1}, ${averaged ? `average of ${averaged.heads} heads` : `head ${head + 1}`}`;
        const canvas = make("canvas");
        const settings = { type: "button", "aria-label": name, title: name, tabindex: -1 };
        const tile = make("button", settings, canvas, make("span", { class: "now" }));
        tile.addEventListener("click", () => toggle(layer, head));
        const weights = read(layer, head).map(row => row.map(Math.sqrt)); // weak ones are to be seen too
        painters.push(() => paint(canvas, weights, "--first"));
        tiles.push({ tile, layer, head });
        grid.append(tile);
      }
    }
    return { grid, tiles };
  }

  function bars(className, rows) {
    return make("ol", { class: `bars ${className}` }, ...rows.map(({ name, share, said }) => {
      const bar = make("span", { class: "bar", "aria-hidden": "true" });
      bar.style.setProperty("--share", share);
      return make("li", { class: said ? "said" : "" }, name, bar, make("span", { class: "figure" }, percent(share)));
    }));
  }

  // A beam of step t and all it came of, the first token first.
  function ancestry(steps, t, beam) {
    const path = [beam];
    for (; t > 0; t--) path.unshift(steps[t - 1][path[0].parent]);
    return path;
  }

  // The hypotheses of each step, best first, and lines to those that they came from.
  function drawBeams(beams) {
    const last = beams.steps.length - 1; // where the search was over: of those that might have gone on nothing came
    const steps = beams.steps.map((step, t) => (t === last ? step.filter(beam => beam.ended) : step));
    const WIDE = 76, HIGH = 30, BOX = 62; // of a cell, and of the box in it; trace.css knows the box
    const best = new Set();
    steps.forEach((step, t) => step.forEach(beam => {
      if (beam.rank === 0) ancestry(steps, t, beam).forEach(node => best.add(node));
    }));
    const fate = beam => (best.has(beam) ? "best" : beam.lived ? "lived" : "died");
    const size = { width: steps.length * WIDE, height: Math.max(...steps.map(step => step.length)) * HIGH };
    const lines = makeSvg("svg", size);
    const field = make("div", { class: "field", "aria-hidden": "true" }, lines);
    field.style.width = `${size.width}px`;
    field.style.height = `${size.height}px`;
    steps.forEach((step, t) => step.forEach((beam, place) => {
      const title = `${shown(beam.text)}: ln p ${minus(beam.score.toFixed(2))}`;
      const node = make("span", { class: `beam ${fate(beam)}${beam.ended ? " ended" : ""}`, title }, shown(beam.text));
      node.style.left = `${t * WIDE}px`;
      node.style.top = `${place * HIGH}px`;
      field.append(node);
      if (t === 0) return;
      const left = (t - 1) * WIDE + BOX, right = t * WIDE;
      const from = (beam.parent + 0.5) * HIGH, to = (place + 0.5) * HIGH;
      const d = `M${left},${from} C${left + 9},${from} ${right - 9},${to} ${right},${to}`;
      lines[fate(beam) === "died" ? "prepend" : "append"](makeSvg("path", { d, class: fate(beam) }));
    }));
    const name = "Beams step by step; the table below has those that ended";
    return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": name }, field);
  }

  function drawEnded({ steps, length_penalty: penalty }) {
    const ended = [];
    steps.forEach((step, t) => step.filter(beam => beam.ended).forEach(beam => {
      const text = ancestry(steps, t, beam).map(node => plain(node.text)).join("").trim();
      ended.push({ rank: beam.rank, text: text || "(empty)", score: beam.score / (t + 1) ** penalty });
    }));
    ended.sort((a, b) => b.score - a.score);
    const cells = (tag, texts, settings = {}) => texts.map(text => make(tag, settings, text));
    const head = make("tr", {}, ...cells("th", ["rank", "score", "output"], { scope: "col" }));
    const rows = ended.map(({ rank, text, score }) => {
      const figures = cells("td", [rank === null ? "dropped" : String(rank + 1), minus(score.toFixed(3))]);
      return make("tr", { class: rank === null ? "died" : "" }, ...figures, make("td", { dir: "auto" }, text));
    });
    const table = make("table", { class: "plain" }, make("thead", {}, head), make("tbody", {}, ...rows));
    return make("div", { class: "scroll" }, table);
  }

  function legend({ mean, against, none_below: bound }) {
    if (mean === null) return note("Source bits are unknown: there is no other source to hold the output against.");
    const line = note(`Under each token: its source bits, against ${against}. `);
    line.append(make("span", { class: "sample" }, "dashed"), ` below ${bound}: as likely without this source. `);
    line.append("The decoder made it up, or the tokens before it say it.");
    return line;
  }

  return function drawTrace(element, data, more = {}) {
    const id = `trace-${drawn++}`, painters = [], slotNamed = slotNames(data.source.slots);
    const at = { step: 0, layer: null, head: null };
    const read = data.attention && weightReader(data.attention);
    const source = drawSource(data, painters), target = drawTarget(data, id, choose);
    const heads = read && drawHeads(data, read, toggle, painters);
    // Of a large trace the page has averages only, and says of how many heads and layers.
    const averaged = read && data.attention.averaged, whole = averaged || data.attention;
    const counts = read ? [data.attention.layers, data.attention.heads] : [];
    const selects = ["Layer", "Head"].slice(0, counts.length).map((name, i) => select(name, counts[i]));
    const reading = make("span", { class: "note reading" }), detail = make("div", { class: "detail" });
    const told = make("p", { class: "unseen", role: "status" });

    function choose(step) {
      at.step = step;
      update();
      target.nodes[step].focus({ preventScroll: true });
    }
    function pick(layer, head) {
      Object.assign(at, { layer, head });
      update();
    }
    function toggle(layer, head) {
      if (averaged) head = null;
      const again = at.layer === layer && at.head === head;
      pick(again ? null : layer, again ? null : head);
    }
    function select(name, count) {
      const options = upTo(count).map(i => make("option", { value: i }, String(i + 1)));
      const box = make("select", { id: `${id}-${name}` }, make("option", { value: "" }, "average of all"), ...options);
      const chosen = each => (each.value === "" ? null : Number(each.value));
      box.addEventListener("change", () => pick(...selects.map(chosen)));
      return box;
    }
    const labelled = (name, box) => make("span", {}, make("label", { for: box.id }, name), " ", box);
    // An average is always called one.
    function readingName() {
      const layers = counted(whole.layers, "layer"), heads = counted(whole.heads, "head");
      if (at.layer !== null && at.head !== null) return `layer ${at.layer + 1}, head ${at.head + 1}`;
      if (at.head !== null) return `average of head ${at.head + 1} over ${layers}`;
      return `average over ${heads} of ${at.layer === null ? layers : `layer ${at.layer + 1}`}`;
    }
    function bitsWords({ bits }) {
      if (bits === null) return "source bits unknown";
      const used = bits >= data.source_bits.none_below;
      return `${bitsText(bits)} source bits${used ? "" : ": as likely without this source"}`;
    }
    function update() {
      const step = data.steps[at.step], weights = read ? read(at.layer, at.head)[at.step] : [];
      const order = [...weights.keys()].sort((a, b) => weights[b] - weights[a]);
      const top = order.slice(0, 5).filter(s => weights[s] > 0);
      target.nodes.forEach((node, t) => {
        node.setAttribute("aria-selected", String(t === at.step));
        node.tabIndex = t === at.step ? 0 : -1;
        node.classList.toggle("later", t > at.step);
      });
      if (read) light(weights, order[0]);
      describe(step, top, weights);
      const names = top.slice(0, 3).map(s => `${slotNamed[s]} ${percent(weights[s])}`);
      const figures = `probability ${step.p.toPrecision(2)}, ${bitsWords(step)}`;
      told.textContent = `Token ${at.step + 1} of ${data.steps.length}: ${shown(step.text)}, ${figures}.`
        + (names.length ? ` Read from ${names.join(", ")}.` : "");
    }
    // The source lights up.
    function light(weights, most) {
      source.nodes.forEach((node, s) => {
        node.dataset.weight = weights[s].toFixed(5);
        node.style.setProperty("--height", (weights[s] / weights[most]).toFixed(3)); // of a bar
        node.style.setProperty("--lit", Math.sqrt(weights[s]).toFixed(3));
        node.classList.toggle("most", s === most);
        node.title = `${slotNamed[s]}: ${percent(weights[s])}`;
        const told = weights[s] >= 0.005 && (s === most || node.classList.contains("token"));
        node.querySelector(".figure").textContent = told ? percent(weights[s]) : "";
      });
      if (source.chips.classList.contains("long"))
        source.chips.scrollTop = source.nodes[most].offsetTop - source.chips.offsetTop - source.chips.clientHeight / 2;
      reading.textContent = `weights: ${readingName()}`;
      selects.forEach((box, i) => { box.value = [at.layer, at.head][i] ?? ""; });
      heads.grid.style.setProperty("--now", at.step);
      const averaged = at.layer === null && at.head === null;
      for (const { tile, layer, head } of heads.tiles) {
        const pressed = !averaged && (at.layer ?? layer) === layer && (at.head ?? head) === head;
        tile.setAttribute("aria-pressed", String(pressed));
      }
    }
    // What is to be told of one token: what came before, what else might have come, what was read.
    function describe(step, top, weights) {
      const next = step.likeliest.map(({ id, text, p }) => ({ name: tokenText(text), share: p, said: id === step.id }));
      if (!next.some(({ said }) => said)) next.push({ name: tokenText(step.text), share: step.p, said: true });
      const named = s => make("span", { class: "text" }, slotNamed[s]);
      const rows = top.map(s => ({ name: named(s), share: weights[s] }));
      const before = data.steps.slice(0, at.step).map(({ text }) => plain(text)).join("").trimStart();
      const said = isSpecial(step.text) ? ` ${step.text}` : plain(step.text).trim() ? plain(step.text) : shown(step.text);
      const own = make("b", {}, before ? said : said.trimStart());
      detail.replaceChildren(
        make("p", { class: "so-far", dir: "auto" }, make("span", { class: "before" }, before), own),
        note(`token ${at.step + 1} of ${data.steps.length} · p ${step.p.toPrecision(3)} · ${bitsWords(step)}`),
        make("section", {}, make("h4", {}, "Likeliest next"), bars("next", next)),
        ...(read ? [make("section", {}, make("h4", {}, "Read from"), bars("read", rows))] : []));
    }

    const parts = [told];
    if (read) {
      const lists = ["Layer", "Head"].map((name, i) => labelled(name, selects[i])).filter((_, i) => !averaged || counts[i] > 1);
      parts.push(make("div", { class: "controls" }, ...lists));
      if (averaged) {
        const of = counts[0] > 1 ? "the heads of each layer" : "all heads of all layers";
        parts.push(note(`To keep this page small, its weights are averages over ${of}; sourcewise trace has each.`));
      }
    } else {
      parts.push(note("This network has no cross-attention: how much a token gains from its source is known, not from where."));
    }
    parts.push(heading("Source", reading), ...source.parts);
    parts.push(heading("Target"), target.list, legend(data.source_bits), detail);
    if (data.what_if || more.askWhatIf) parts.push(drawWhatIf(data, more));
    if (read && heads.tiles.length > 1) {
      const how = note("one row per target token, one column per memory position", "span");
      parts.push(heading(averaged ? "Every layer" : "Every head", how), heads.grid);
    }
    if (read) {
      const map = () => ({ weights: read(at.layer, at.head), rows: data.steps.map(({ text }) => shown(text)),
        columns: slotNamed, title: `${data.model ? `${data.model}, ` : ""}${readingName()}` });
      parts.push(saveButtons(map));
    }
    for (const stack of ["encoder", "decoder"])
      if (data.self_attention?.[stack]) parts.push(drawSelf(data, stack, slotNamed, painters));
    if (data.beams) {
      const fates = note("best first at each step; dropped ones are pale", "span");
      parts.push(heading("Beams", fates), drawBeams(data.beams), drawEnded(data.beams));
    }
    element.classList.add("trace");
    element.replaceChildren(...parts);
    const repaint = () => painters.forEach(painter => painter());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
    repaint();
    update();
  };
})();
