// drawSelf(data, stack, slotNames, painters): what the positions of the encoder, or of the decoder, read of their own
// side. A position is chosen, and those that it reads light up.
"use strict";
const drawSelf = (() => {
  const { make, note, upTo, percent, shown, weightReader, paint, addToken } = traceParts;
  const LONG = 150; // positions: more scroll in a frame of their own
  const SAID = {
    encoder: ["Encoder: what each position reads of the source", "Choose a position: those that the encoder mixes into it light up."],
    decoder: ["Decoder: what each token reads of the tokens before it", "Choose a token: those that the decoder read to output it light up."],
  };

  return function drawSelf(data, stack, slotNamed, painters) {
    const given = data.self_attention[stack], read = weightReader(given), ofDecoder = stack === "decoder";
    const [title, how] = SAID[stack], at = { query: 0, layer: null, head: null };
    // The decoder reads the start token and what it has output; its position t outputs token t.
    const names = ofDecoder ? ["start", ...data.steps.slice(0, -1).map(({ text }) => shown(text))] : slotNamed;
    const texts = ofDecoder ? ["", ...data.steps.slice(0, -1).map(({ text }) => text)] : data.source.slots.map(({ text }) => text || " ");
    const keys = make("div", { class: names.length > LONG ? "tokens lossy long" : "tokens lossy", dir: "auto" });
    const chips = names.map((name, i) => {
      const tag = ofDecoder ? "span" : "button", settings = ofDecoder ? {} : { type: "button" };
      const node = make(tag, { ...settings, class: "token" }, make("span", { class: "text" }, name), make("span", { class: "figure" }));
      if (!ofDecoder) node.addEventListener("click", () => choose({ query: i }));
      addToken(keys, node, texts[i]);
      return node;
    });
    const queries = make("div", { class: "tokens chosen-of", dir: "auto" });
    const outputs = ofDecoder ? data.steps.map(({ text }, t) => {
      const node = make("button", { type: "button", class: "token" }, make("span", { class: "text" }, shown(text)));
      node.addEventListener("click", () => choose({ query: t }));
      addToken(queries, node, text);
      return node;
    }) : chips;
    const told = make("p", { class: "note", "aria-live": "polite" });
    const grid = make("div", { class: "heads-of-self", role: "group", "aria-label": `Layers and heads of the ${stack}` });
    grid.style.setProperty("--heads", given.heads);
    const tiles = [];
    for (const layer of upTo(given.layers)) {
      grid.append(note(`layer ${layer + 1}`, "span"));
      for (const head of upTo(given.heads)) {
        tiles.push({ tile: tileOf(layer, head), layer, head });
        grid.append(tiles.at(-1).tile);
      }
    }
    function tileOf(layer, head) {
      const name = `${stack} layer ${layer + 1} ${given.averaged ? "all heads" : `head ${head + 1}`}`, canvas = make("canvas");
      const tile = make("button", { type: "button", title: name, "aria-label": name }, canvas);
      tile.addEventListener("click", () => {
        const again = at.layer === layer && at.head === head;
        choose({ layer: again ? null : layer, head: again ? null : head });
      });
      painters.push(() => paint(canvas, read(layer, head).map(row => row.map(Math.sqrt)), "--first"));
      return tile;
    }

    function choose(changes) {
      Object.assign(at, changes);
      const weights = read(at.layer, at.head)[at.query], most = Math.max(...weights);
      chips.forEach((node, i) => {
        node.dataset.weight = weights[i].toFixed(5);
        node.style.setProperty("--lit", Math.sqrt(weights[i]).toFixed(3));
        node.querySelector(".figure").textContent = weights[i] >= 0.005 ? percent(weights[i]) : "";
        node.classList.toggle("most", weights[i] === most);
        node.classList.toggle("later", ofDecoder && i > at.query);
      });
      outputs.forEach((node, i) => node.setAttribute("aria-pressed", String(i === at.query)));
      tiles.forEach(({ tile, layer, head }) => tile.setAttribute("aria-pressed", String(layer === at.layer && head === at.head)));
      const of = given.averaged ?? given, one = at.layer !== null && !given.averaged;
      const which = one ? `layer ${at.layer + 1}, head ${at.head + 1}`
        : at.layer !== null ? `average over the heads of layer ${at.layer + 1}`
        : `average over ${of.heads} heads of ${of.layers} layer${of.layers === 1 ? "" : "s"}`;
      told.textContent = `${ofDecoder ? shown(data.steps[at.query].text) : names[at.query]} reads ${names[weights.indexOf(most)]} most (${percent(most)}); weights: ${which}.`;
    }

    choose({});
    const body = [note(how), ...(ofDecoder ? [queries] : []), keys, told, ...(tiles.length > 1 ? [grid] : [])];
    return make("details", { class: `self ${stack}` }, make("summary", {}, title), ...body);
  };
})();
