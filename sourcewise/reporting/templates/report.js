// The traces of a few examples, one at a time; and a page that follows a training, if one wants that.
"use strict";
(() => {
  const holder = document.getElementById("traces-data"), place = document.getElementById("trace");
  const tabs = [...document.querySelectorAll("[role=tab]")];
  if (holder && place) {
    const traces = JSON.parse(holder.textContent);
    const show = number => {
      tabs.forEach((tab, i) => {
        tab.setAttribute("aria-selected", String(i === number));
        tab.tabIndex = i === number ? 0 : -1;
      });
      place.setAttribute("aria-labelledby", tabs[number].id);
      drawTrace(place, traces[number]);
    };
    tabs.forEach((tab, i) => tab.addEventListener("click", () => show(i)));
    tabs[0].parentElement.addEventListener("keydown", event => {
      const now = tabs.indexOf(document.activeElement), last = tabs.length - 1;
      const moves = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last };
      if (!(event.key in moves)) return;
      event.preventDefault();
      const next = Math.max(0, Math.min(last, moves[event.key]));
      show(next);
      tabs[next].focus();
    });
    for (const button of document.querySelectorAll("[data-trace]"))
      button.addEventListener("click", () => {
        show(Number(button.dataset.trace));
        document.getElementById("traces").scrollIntoView();
        tabs[Number(button.dataset.trace)].focus({ preventScroll: true });
      });
    show(0);
  }

  // The page is rewritten while its run trains. The wish to follow it is in the address, which outlives a reload.
  const follow = document.getElementById("follow");
  if (!follow) return;
  const FOLLOWING = "#following", EVERY = 15_000; // milliseconds
  const plan = () => setTimeout(() => { if (follow.checked) location.reload(); }, EVERY);
  follow.checked = location.hash === FOLLOWING;
  if (follow.checked) plan();
  follow.addEventListener("change", () => {
    location.hash = follow.checked ? FOLLOWING : "#still";
    if (follow.checked) plan();
  });
})();
