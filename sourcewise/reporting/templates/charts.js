// Charts that are read and zoomed together: every svg[data-chart] of the page has the same steps. The pointer, a finger
// or the arrow keys choose a step and the figures are written below; dragging over a range, + and − zoom.
"use strict";
const charts = (() => {
  const svgs = document.querySelectorAll("svg[data-chart]"), SVG = svgs[0]?.namespaceURI;
  const group = []; // of all charts
  let whole = null, range = null, at = null, steps = [];

  const make = (tag, settings) => {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(settings)) node.setAttribute(name, value);
    return node;
  };
  const clamp = (value, low, high) => Math.max(low, Math.min(high, value));
  const shown = value => {
    if (value && (Math.abs(value) < 1e-4 || Math.abs(value) >= 1e6))
      return value.toExponential(2).replace(/\.?0*e\+?/, "e");
    return value.toLocaleString("en", Math.abs(value) < 1000 ? { maximumSignificantDigits: 6 } : { maximumFractionDigits: 0 });
  };

  // Round numbers from at or below `low` to at or above `high`, as charts.py has them.
  function niceTicks(low, high, most = 5) {
    if (!(high > low)) [low, high] = low ? [low - Math.abs(low) / 2, low + Math.abs(low) / 2] : [0, 1];
    const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map(factor => factor * power).find(each => each >= rough * (1 - 1e-9));
    const first = Math.floor(low / step + 1e-9), last = Math.ceil(high / step - 1e-9);
    return Array.from({ length: last - first + 1 }, (_, k) => Number(((first + k) * step).toPrecision(12)));
  }
  function logTicks(low, high) {
    const first = Math.floor(Math.log10(low)), last = Math.max(first + 1, Math.ceil(Math.log10(high)));
    const factors = last - first > 2 ? [1] : [1, 2, 5];
    const all = Array.from({ length: last - first + 1 }, (_, k) => factors.map(factor => factor * 10 ** (first + k))).flat();
    const below = all.filter(tick => tick <= low).at(-1) ?? all[0], above = all.find(tick => tick >= high) ?? all.at(-1);
    return all.filter(tick => tick >= below && tick <= above).map(tick => Number(tick.toPrecision(12)));
  }

  // A curve's points between two steps; where it goes in and out, what lies on the straight line.
  function between(points, [low, high]) {
    const inside = points.filter(([step]) => step >= low && step <= high);
    for (const edge of [low, high]) {
      const after = points.findIndex(([step]) => step > edge);
      if (after < 1 || points[after - 1][0] === edge) continue;
      const [[a, from], [b, to]] = points.slice(after - 1, after + 1);
      inside[edge === low ? "unshift" : "push"]([edge, from + (to - from) * (edge - a) / (b - a)]);
    }
    return inside;
  }
  const nearest = (points, step) =>
    points.reduce((best, point) => Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best);

  class Chart {
    constructor(svg) {
      const data = JSON.parse(svg.dataset.chart);
      Object.assign(this, { svg, data, output: svg.parentElement.querySelector("output") });
      [this.left, this.right, this.top, this.bottom] = data.frame;
      this.drawn = svg.querySelector(".drawn");
      this.asWritten = [...this.drawn.childNodes];
      this.band = make("rect", { class: "band", y: this.top, height: this.bottom - this.top, hidden: "" });
      this.cursor = make("line", { class: "cursor", y1: this.top, y2: this.bottom, hidden: "" });
      svg.append(this.band, this.cursor);
    }
    x(step) {
      const [low, high] = range;
      return this.left + (this.right - this.left) * (high > low ? (step - low) / (high - low) : 0.5);
    }
    step(event) {
      const box = this.svg.getBoundingClientRect();
      const x = (event.clientX - box.left) * this.svg.viewBox.baseVal.width / box.width;
      return range[0] + (range[1] - range[0]) * clamp((x - this.left) / (this.right - this.left), 0, 1);
    }
    redraw() {
      if (range === whole) return this.drawn.replaceChildren(...this.asWritten);
      const { lines, log, least } = this.data;
      const cut = lines.map(line => ({ ...line, points: between(line.points, range), faint: between(line.faint, range) }));
      const values = cut.flatMap(line => [...line.points, ...line.faint]).map(point => point[1]).filter(v => !log || v > 0);
      if (!values.length) {
        const middle = { x: (this.left + this.right) / 2, y: (this.top + this.bottom) / 2, "text-anchor": "middle" };
        const note = make("text", middle);
        note.textContent = "nothing was measured in these steps";
        return this.drawn.replaceChildren(note);
      }
      const low = Math.min(...values), high = Math.max(...values);
      const ticks = log ? logTicks(low, high) : niceTicks(least === null ? low : Math.min(0, low), high);
      const [from, to] = [Math.min(ticks[0], low), Math.max(ticks.at(-1), high)].map(v => (log ? Math.log10(v) : v));
      const y = value => this.bottom - (this.bottom - this.top)
        * ((log ? Math.log10(Math.max(value, 10 ** from)) : value) - from) / (to - from);
      const nodes = [];
      const label = (x, height, text, anchor) => {
        const node = make("text", { x, y: height, "text-anchor": anchor });
        node.textContent = text;
        nodes.push(node);
      };
      for (const tick of ticks) {
        nodes.push(make("line", { class: "grid", x1: this.left, x2: this.right, y1: y(tick), y2: y(tick) }));
        label(this.left - 6, y(tick) + 4, shown(tick), "end");
      }
      const wholes = niceTicks(...range, 4).filter(tick => Number.isInteger(tick)); // there is no step 2.5
      for (const tick of wholes.filter(tick => tick >= range[0] && tick <= range[1]))
        label(this.x(tick), this.svg.viewBox.baseVal.height - 8, shown(tick), tick === range[1] ? "end" : "middle");
      const path = points => points.map(([step, value]) => `${this.x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
      for (const { style, points, faint, dots } of cut) {
        if (faint.length) nodes.push(make("polyline", { class: `${style} faint`, points: path(faint) }));
        nodes.push(make("polyline", { class: style, points: path(points) }));
      }
      for (const { style, points, dots } of lines.filter(line => line.dots))
        for (const [step, value] of points.filter(([step]) => step >= range[0] && step <= range[1]))
          nodes.push(make("circle", { class: style, cx: this.x(step), cy: y(value), r: 2.5 }));
      this.drawn.replaceChildren(...nodes);
    }
    // The figures at a step; for a curve without one, the nearest figure and its step.
    tell() {
      this.cursor.toggleAttribute("hidden", at === null);
      if (at === null) return void (this.output.textContent = "\u00a0");
      for (const end of ["x1", "x2"]) this.cursor.setAttribute(end, this.x(at));
      const figures = this.data.lines.map(({ name, points }) => {
        const [step, value] = nearest(points, at);
        return `${name} ${shown(value)}${step === at ? "" : ` (at ${step.toLocaleString("en")})`}`;
      });
      this.output.textContent = `step ${at.toLocaleString("en")}: ${figures.join(", ")}`;
    }
    mark(from, to) {
      const [low, high] = [this.x(Math.min(from, to)), this.x(Math.max(from, to))];
      this.band.removeAttribute("hidden");
      this.band.setAttribute("x", low);
      this.band.setAttribute("width", high - low);
    }
  }

  function choose(step) {
    at = step;
    group.forEach(chart => chart.tell());
  }
  // The nearest step that something was measured at.
  const measured = step => steps.reduce((best, s) => (Math.abs(s - step) < Math.abs(best - step) ? s : best));
  function move(by) {
    const inside = steps.filter(step => step >= range[0] && step <= range[1]);
    const now = at === null ? (by > 0 ? -1 : inside.length) : inside.indexOf(at);
    if (inside.length) choose(inside[clamp(now + by, 0, inside.length - 1)]);
  }
  function zoom(low, high) {
    const [first, last] = whole;
    [low, high] = [Math.max(first, Math.min(low, high)), Math.min(last, Math.max(low, high))];
    range = low <= first && high >= last ? whole : [low, high];
    if (at !== null && (at < range[0] || at > range[1])) at = null;
    group.forEach(chart => { chart.redraw(); chart.tell(); });
    const back = document.getElementById("whole-course");
    if (back) back.hidden = range === whole;
  }
  const reset = () => zoom(...whole);
  function scale(factor) { // around the step that is chosen, else the middle
    const [low, high] = range, middle = at ?? (low + high) / 2;
    const width = Math.max((high - low) * factor, (whole[1] - whole[0]) / 500);
    const start = clamp(middle - width * (middle - low) / (high - low || 1), whole[0], Math.max(whole[0], whole[1] - width));
    zoom(start, start + width);
  }

  function listen(chart) {
    const { svg } = chart;
    let pressed = null;
    svg.addEventListener("pointerdown", event => {
      if (event.button !== 0) return;
      pressed = { step: chart.step(event), x: event.clientX };
      svg.setPointerCapture(event.pointerId);
    });
    svg.addEventListener("pointermove", event => {
      choose(measured(chart.step(event)));
      if (pressed && Math.abs(event.clientX - pressed.x) > 6) chart.mark(pressed.step, chart.step(event));
    });
    svg.addEventListener("pointerup", event => {
      if (pressed && Math.abs(event.clientX - pressed.x) > 6) zoom(pressed.step, chart.step(event));
      pressed = null;
      chart.band.setAttribute("hidden", "");
    });
    svg.addEventListener("pointercancel", () => {
      pressed = null;
      chart.band.setAttribute("hidden", "");
    });
    svg.addEventListener("pointerleave", () => { if (!pressed && document.activeElement !== svg) choose(null); });
    svg.addEventListener("dblclick", reset);
    svg.addEventListener("focus", () => chart.output.setAttribute("aria-live", "polite")); // of all charts one speaks
    svg.addEventListener("blur", () => {
      chart.output.setAttribute("aria-live", "off");
      choose(null);
    });
    svg.addEventListener("keydown", event => {
      const keys = {
        ArrowLeft: () => move(-1), ArrowRight: () => move(1), Home: () => move(-1e9), End: () => move(1e9),
        "+": () => scale(0.5), "=": () => scale(0.5), "-": () => scale(2), Escape: reset,
      };
      if (!(event.key in keys) || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      keys[event.key]();
    });
  }

  for (const svg of svgs) group.push(new Chart(svg));
  if (!group.length) return group;
  whole = [Math.min(...group.map(chart => chart.data.steps[0])), Math.max(...group.map(chart => chart.data.steps[1]))];
  range = whole;
  steps = [...new Set(group.flatMap(chart => chart.data.lines).flatMap(line => line.points.map(point => point[0])))]
    .sort((a, b) => a - b);
  group.forEach(listen);
  document.getElementById("whole-course")?.addEventListener("click", reset);
  return group;
})();
