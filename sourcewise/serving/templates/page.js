// The page at /: a source and a search are chosen, the server is asked, and what it answers is drawn by drawTrace.
"use strict";
(() => {
  const { ask, events } = asking;
  const LONG = 120, LINES = 500; // characters of a large output; lines of a file
  const by = id => document.getElementById(id);
  const facts = JSON.parse(by("facts").textContent);
  let running = null; // the AbortController of what is under way
  let again = null; // what to do when the token is there

  // What a side asks for, as fetch takes it: text in JSON; features as their .npy, with the options in the query.
  function request(path, { given, options }, more, signal) {
    if (!facts.dims)
      return ask(path, { body: JSON.stringify({ ...given, ...options, ...more }), type: "application/json", signal });
    const { file, ...rest } = given;
    const query = new URLSearchParams({ ...rest, ...options, ...more });
    return ask(`${path}?${query}`, { body: file, type: "application/octet-stream", signal });
  }

  // ---- the form ----

  function makeSide(letter) {
    const node = by("side").content.firstElementChild.cloneNode(true);
    const part = name => node.querySelector(`[name="${name}"]`);
    for (const radio of node.querySelectorAll("[name=search]")) radio.name = `search ${letter}`; // a group a side
    const side = { letter, node, part, reference: "", picked: null, file: null, lines: [], examples: [] };
    node.querySelector("legend").textContent = letter;
    node.addEventListener("change", () => update(side));
    part("example").addEventListener("change", () => pick(side).catch(fail));
    part("file").addEventListener("change", () => openFile(side, part("file").files[0]));
    part("source")?.addEventListener("input", () => forget(side));
    node.addEventListener("dragover", event => {
      event.preventDefault();
      node.querySelector(".drop")?.classList.add("over");
    });
    for (const name of ["dragleave", "drop"])
      node.addEventListener(name, () => node.querySelector(".drop")?.classList.remove("over"));
    node.addEventListener("drop", event => {
      if (!event.dataTransfer.files.length) return;
      event.preventDefault();
      openFile(side, event.dataTransfer.files[0]);
    });
    if (letter === "B") {
      node.hidden = true;
      node.querySelector(".same").hidden = false;
      node.querySelector("[value=beam]").checked = true;
    }
    by("sides").append(node);
    update(side);
    return side;
  }

  const search = ({ node }) => node.querySelector(".searches input:checked").value;
  const borrows = ({ letter, part }) => letter === "B" && part("same").checked;

  // Only the options of the search that is chosen are there.
  function update(side) {
    for (const group of side.node.querySelectorAll("[data-search]"))
      group.hidden = group.dataset.search !== search(side);
    side.node.querySelector(".source-part").hidden = borrows(side);
  }

  function forget(side) {
    Object.assign(side, { reference: "", picked: null });
    side.part("example").value = "";
  }

  // An example, or a line of a file, becomes the source.
  async function pick(side) {
    const [kind, number] = side.part("example").value.split(" ");
    if (kind === "line") {
      side.part("source").value = side.lines[number];
      side.reference = "";
    } else if (kind === "example") {
      const chosen = side.examples[number];
      if (facts.dims) {
        const answer = await ask(`/examples/${number}`);
        take(side, await answer.arrayBuffer(), chosen.id);
        side.part("example").value = `${kind} ${number}`;
      } else {
        side.part("source").value = chosen.source;
      }
      if (side.part("task") && chosen.task) side.part("task").value = chosen.task;
      Object.assign(side, { reference: chosen.reference, picked: chosen });
    }
  }

  // A file of the user's own.
  async function openFile(side, file) {
    if (!file) return;
    if (file.size > facts.bytes) {
      fail(new Error(`${file.name}: is ${file.size.toLocaleString("en")} bytes; the server takes ${facts.bytes.toLocaleString("en")}`));
      return;
    }
    forget(side);
    if (facts.dims) {
      take(side, await file.arrayBuffer(), file.name);
      return;
    }
    const lines = (await file.text()).split(/\r?\n/).filter(line => line.trim());
    side.lines = lines.slice(0, LINES);
    side.part("source").value = side.lines[0] ?? "";
    if (lines.length > 1) offer(side, file.name, side.lines.map((text, i) => [`line ${i}`, `${i + 1}: ${text}`]));
    if (lines.length > 1) side.part("example").value = "line 0";
  }

  function take(side, file, name) {
    side.file = file;
    const head = new TextDecoder("latin1").decode(file.slice(0, 200));
    const shape = /'shape': \(([^)]*)\)/.exec(head)?.[1].split(",").map(part => part.trim()).filter(Boolean).join(" × ");
    side.node.querySelector(".file").textContent = shape ? `${name}: ${shape}` : name;
  }

  // A group of things to pick; one of the same name before it goes.
  function offer(side, name, rows) {
    const box = side.part("example"), group = document.createElement("optgroup");
    group.label = name;
    for (const [value, text] of rows) group.append(new Option(text.slice(0, 90), value));
    for (const other of box.querySelectorAll("optgroup"))
      if (other.label === name || other.firstChild.value.split(" ")[0] === rows[0][0].split(" ")[0]) other.remove();
    box.append(group);
    side.node.querySelector(".example").hidden = false;
  }

  // What a side asks for: {given: its source, options, reference}.
  function read(side) {
    const from = borrows(side) ? sides[0] : side, kind = search(side), options = {}, given = {};
    for (const input of side.node.querySelectorAll(".settings input"))
      if (!input.closest("[hidden]") && input.value !== "") options[input.name] = Number(input.value);
    if (kind === "greedy") options.beams = 1;
    options.sample = kind === "sampling";
    if (facts.dims) {
      if (!from.file) throw new Error("No source: choose an .npy, or an example.");
      given.file = from.file;
      if (from.picked?.source) given.prefix = from.picked.source; // the prompt beside these features
    } else {
      given.source = from.part("source").value;
    }
    if (from.part("task")) given.task = from.part("task").value;
    return { given, options, streams: kind !== "beam", reference: from.reference };
  }

  // ---- an output ----

  function makeResult({ letter }) {
    const node = by("result").content.firstElementChild.cloneNode(true);
    const part = name => node.querySelector(`.${name}`);
    node.querySelector("h2").textContent = "Output";
    by("results").append(node);
    return { letter, node, part, data: null };
  }

  function begin(result, wanted, comparing) {
    result.data = null;
    result.node.hidden = false;
    result.node.setAttribute("aria-label", comparing ? `Output ${result.letter}` : "Output");
    result.node.querySelector("h2").textContent = comparing ? `Output ${result.letter}` : "Output";
    for (const name of ["output", "drawing"]) result.part(name).replaceChildren();
    result.part("output").className = "output arriving";
    result.part("error").hidden = true;
    result.part("reference").textContent = wanted.reference;
    result.part("reference").hidden = !wanted.reference;
    result.part("state").textContent = wanted.streams ? "Reading the source …" : "Searching …";
  }

  // Ask, show what arrives, then trace it.
  async function decode(result, wanted, signal) {
    const output = result.part("output"), state = result.part("state"), begun = performance.now();
    const seconds = () => `${((performance.now() - begun) / 1000).toFixed(2)} s`;
    let times = "";
    try {
      if (wanted.streams) {
        const answer = await request("/generate", wanted, { stream: true }, signal);
        for await (const { name, data } of events(answer)) {
          if (name === "error") throw new asking.Refused(500, data.error);
          if (name === "done") continue;
          times ||= `first token after ${seconds()}`;
          output.append(Object.assign(document.createElement("span"), { textContent: data.text }));
        }
        times = [times, `all after ${seconds()}`].filter(Boolean).join(", ");
        state.textContent = `${times}. Tracing …`;
      }
      const traced = await (await request("/trace", wanted, {}, signal)).json();
      result.wanted = wanted;
      show(result, traced, times || `found and traced in ${seconds()}`);
    } catch (error) {
      output.classList.remove("arriving");
      state.textContent = error.name === "AbortError" ? "Stopped." : "";
      if (error.name === "AbortError") return;
      result.part("error").textContent = error.message;
      result.part("error").hidden = false;
      throw error;
    }
  }

  function show(result, data, times) {
    const { search: how, finished, text } = data.output, output = result.part("output");
    result.data = data;
    output.className = text.length > LONG ? "output long" : "output";
    if (output.textContent !== text || !text) output.textContent = text || "(empty output)";
    const known = [how, finished ? "ended by itself" : "cut at the maximum length"];
    known.push(`${data.steps.length} token${data.steps.length === 1 ? "" : "s"}`, `ln p ${figure(total(data))}`);
    if (data.source_bits.mean !== null) known.push(`${figure(data.source_bits.mean)} source bits per token`);
    result.part("state").textContent = [...known, times].join(" · ");
    const askWhatIf = async () => (await request("/trace", result.wanted, { what_if: true })).json();
    drawTrace(result.part("drawing"), data, { askWhatIf, change: facts.dims ? null : part => change(result, part) });
  }

  // The source of an output is copied to B, searched alike, with a part of it selected to type over.
  function change({ letter, data, wanted }, chosen) {
    const [a, b] = sides, whole = data.source.text, typed = wanted.given.source, field = b.part("source");
    let begin = -1, end = 0;
    for (const { text } of data.what_if.slice(0, data.what_if.indexOf(chosen) + 1)) {
      begin = whole.indexOf(text, end);
      if (begin >= 0) end = begin + text.length;
    }
    if (letter === "A") {
      b.node.querySelector(`.searches [value=${search(a)}]`).checked = true;
      for (const input of a.node.querySelectorAll(".settings input")) b.part(input.name).value = input.value;
    }
    if (!by("compare").checked) by("compare").click();
    b.part("same").checked = false;
    update(b);
    field.value = typed;
    field.focus();
    const prefix = whole.endsWith(typed) ? whole.length - typed.length : 0;
    if (begin >= prefix) field.setSelectionRange(begin - prefix, end - prefix);
    else field.select(); // the tokenizer writes it otherwise, or it is the prefix
  }

  const figure = value => value.toFixed(2).replace("-", "−");
  const total = data => data.steps.reduce((sum, step) => sum + Math.log(step.p), 0);

  // ---- two of them ----

  function compare() {
    const [a, b] = results.map(({ data }) => data);
    if (!a || !b) return;
    const odd = difference.differing(...[a, b].map(({ steps }) => steps.map(({ id }) => id)));
    const spoken = [a, b].map(({ output }) => difference.words(output.text)), oddWords = difference.differing(...spoken);
    results.forEach((result, side) => {
      const other = sides[1 - side].letter;
      result.node.querySelectorAll("[role=option]").forEach((node, t) => {
        if (!odd[side].has(t)) return;
        node.classList.add("differs");
        node.setAttribute("aria-label", `${node.getAttribute("aria-label")}, not in ${other}`);
      });
      if (!oddWords[side].size) return;
      result.part("output").replaceChildren(...spoken[side].map((word, i) => {
        if (!oddWords[side].has(i) || !word.trim()) return word;
        return Object.assign(document.createElement("mark"), { className: "differs", textContent: word });
      }));
    });
    by("difference").textContent = odd[0].size + odd[1].size === 0 ? "A and B say the same."
      : `Underlined: ${odd[0].size} of A's ${a.steps.length} tokens are not in B, ${odd[1].size} of B's ${b.steps.length} not in A.`;
    by("difference").hidden = false;
  }

  // ---- going ----

  async function go() {
    running?.abort();
    const own = running = new AbortController(), comparing = by("compare").checked;
    const chosen = comparing ? [0, 1] : [0];
    by("difference").hidden = true;
    results[1].node.hidden = !comparing;
    by("stop").hidden = false;
    try {
      const wanted = chosen.map(i => read(sides[i]));
      wanted.forEach((each, i) => begin(results[i], each, comparing));
      const done = await Promise.allSettled(wanted.map((each, i) => decode(results[i], each, own.signal)));
      const failed = done.find(({ status }) => status === "rejected");
      if (failed) fail(failed.reason, go);
      else if (comparing) compare();
    } catch (error) {
      fail(error);
    } finally {
      if (running === own) {
        running = null;
        by("stop").hidden = true;
      }
    }
  }

  // An error that no output shows; of a wrong token, another is asked for.
  function fail(error, retry = null) {
    if (error.status === 401) {
      askToken(retry, asking.hasToken() ? error.message : "");
    } else if (!retry) {
      begin(results[0], { reference: "" }, false);
      results[0].part("output").classList.remove("arriving");
      results[0].part("state").textContent = "";
      results[0].part("error").textContent = error.message;
      results[0].part("error").hidden = false;
    }
  }

  function askToken(retry, message = "") {
    const form = by("token"), line = form.querySelector(".error");
    again = retry;
    form.hidden = false;
    line.textContent = message;
    line.hidden = !message;
    form.querySelector("[type=password]").focus();
  }

  async function loadExamples() {
    const { examples } = await (await ask("/examples")).json();
    if (!examples.length) return;
    const rows = examples.map(({ id, source, frames, reference }, i) =>
      [`example ${i}`, facts.dims ? `${id}: ${frames} frames, ${reference}` : source]);
    for (const side of sides) {
      side.examples = examples;
      offer(side, "of the run's own data", rows);
    }
  }

  const sides = ["A", "B"].map(makeSide), results = sides.map(makeResult);
  by("ask").addEventListener("submit", event => {
    event.preventDefault();
    go();
  });
  by("stop").addEventListener("click", () => running?.abort());
  by("compare").addEventListener("change", () => {
    const on = by("compare").checked;
    document.body.classList.toggle("comparing", on);
    sides[1].node.hidden = !on;
  });
  by("token").addEventListener("submit", event => {
    event.preventDefault();
    asking.keepToken(by("token").querySelector("[type=password]").value);
    by("token").hidden = true;
    loadExamples().then(() => again?.(), error => fail(error, again ?? loadExamples));
  });
  document.addEventListener("keydown", event => {
    if (event.key === "Escape") running?.abort();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) by("ask").requestSubmit();
  });
  if (facts.guarded && !asking.hasToken()) askToken(null);
  else loadExamples().catch(error => fail(error, loadExamples));
})();
