// Reading a chart: the pointer, a finger or the arrow keys choose a step; the figures are written below.
"use strict";
for (const svg of document.querySelectorAll("svg[data-chart]")) {
  const chart = JSON.parse(svg.dataset.chart);
  const [left, right, first, last] = chart.x;
  const cursor = svg.querySelector(".cursor");
  const output = svg.parentElement.querySelector("output");
  const steps = [...new Set(chart.lines.flatMap(line => line.points.map(point => point[0])))].sort((a, b) => a - b);
  let at = steps.length;

  function nearest(points, step) {
    return points.reduce((best, point) => Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best);
  }
  function show(index) {
    at = Math.max(0, Math.min(steps.length - 1, index));
    const step = steps[at];
    const x = last > first ? left + (right - left) * (step - first) / (last - first) : (left + right) / 2;
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.removeAttribute("hidden");
    const figures = chart.lines.map(line => `${line.name} ${nearest(line.points, step)[1]}`);
    output.textContent = `step ${step.toLocaleString("en")}: ${figures.join(", ")}`;
  }
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
    const step = first + (last - first) * (x - left) / (right - left);
    show(steps.indexOf(steps.reduce((best, s) => Math.abs(s - step) < Math.abs(best - step) ? s : best)));
  });
  svg.addEventListener("pointerleave", () => cursor.setAttribute("hidden", ""));
  svg.addEventListener("keydown", event => {
    const moves = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: steps.length - 1 };
    if (event.key in moves) {
      event.preventDefault();
      show(moves[event.key]);
    }
  });
}
