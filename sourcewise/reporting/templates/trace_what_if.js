// drawWhatIf(data, more): parts of the source, each of which can be taken away; what the output loses, and what is said
// then. Where the answers are not there yet, `more.askWhatIf` gets them.
"use strict";
const drawWhatIf = (() => {
  const { make, note, heading, shown, tokenText, bitsText, framesName, addToken } = traceParts;
  const sum = bits => bits.reduce((total, each) => total + (each ?? 0), 0);
  const named = part => (part.text ? shown(part.text) : framesName(part.start, part.stop));

  // A chip whose colour says how much is lost; what a part speaks against is told by its figure alone.
  function chip(tag, settings, text, bits, most) {
    const node = make(tag, settings, text, make("span", { class: "figure" }, bitsText(bits)));
    node.style.setProperty("--lit", Math.sqrt(Math.max(0, (bits ?? 0) / (most || 1))).toFixed(3));
    return node;
  }

  // The words of an output; those that are not in the usual one are marked.
  function marked(said, usual) {
    const words = difference.words(said), odd = difference.differing(difference.words(usual), words)[1];
    return words.map((word, i) => (odd.has(i) && word.trim() ? make("mark", { class: "differs" }, word) : word));
  }

  function detailOf(data, without, more) {
    const most = Math.max(...without.bits.map(bits => bits ?? 0)), row = make("div", { class: "tokens lossy", dir: "auto" });
    data.steps.forEach((step, t) =>
      addToken(row, chip("span", { class: "token" }, tokenText(step.text), without.bits[t], most), step.text));
    const same = without.output === data.output.text;
    const says = make("p", { class: "so-far said-then", dir: "auto" }, ...(same ? [without.output] : marked(without.output, data.output.text)));
    const parts = [note(`Without ${named(without)} the output ${same ? "stays the same" : "is"}:`), says,
      note("What each token of the output above loses, in bits:"), row];
    if (more.change && without.text) {
      const button = make("button", { type: "button" }, "Say something else there");
      button.addEventListener("click", () => more.change(without));
      parts.push(button);
    }
    return parts;
  }

  function drawParts(data, more) {
    const totals = data.what_if.map(({ bits }) => sum(bits)), most = Math.max(...totals);
    const row = make("div", { class: "tokens lossy parts", dir: "auto", role: "group", "aria-label": "Parts of the source" });
    const detail = make("div", { class: "detail", "aria-live": "polite" });
    const nodes = data.what_if.map((without, i) => {
      const told = `without ${named(without)}: ${bitsText(totals[i])} bits`;
      const settings = { type: "button", class: "token gap", title: told, "aria-label": told };
      const node = chip("button", settings, make("span", { class: "text" }, named(without)), totals[i], most);
      node.addEventListener("click", () => choose(i));
      row.append(node);
      return node;
    });
    function choose(chosen) {
      nodes.forEach((node, i) => node.setAttribute("aria-pressed", String(i === chosen)));
      detail.replaceChildren(...detailOf(data, data.what_if[chosen], more));
    }
    if (!nodes.length) return [note("The source is one part: without it nothing is left.")];
    choose(totals.indexOf(most));
    return [row, detail];
  }

  return function drawWhatIf(data, more) {
    const about = note("the bits that this output loses without a part of its source; click one", "span");
    const section = make("section", { class: "what-if", "aria-label": "What if" }, heading("What if", about));
    if (data.what_if) {
      section.append(...drawParts(data, more));
      return section;
    }
    const button = make("button", { type: "button" }, "Take each part of the source away");
    const problem = make("p", { class: "error", role: "alert", hidden: "" });
    button.addEventListener("click", async () => {
      button.disabled = true;
      problem.hidden = true;
      try {
        data.what_if = (await more.askWhatIf()).what_if;
        button.replaceWith(...drawParts(data, more));
      } catch (error) {
        problem.textContent = error.message;
        problem.hidden = false;
        button.disabled = false;
      }
    });
    section.append(button, problem);
    return section;
  };
})();
