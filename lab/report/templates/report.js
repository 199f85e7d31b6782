// Draws the figures when they come into view, exchanges their colours with the theme, sorts and filters the table.
(() => {
  "use strict";
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const exchange = JSON.parse(document.getElementById("exchange").textContent);
  const plots = [...document.querySelectorAll(".plot")];
  const config = { displayModeBar: false, showSendToCloud: false, plotlyServerURL: "", responsive: true,
    displaylogo: false, doubleClick: false, scrollZoom: false, showTips: false };

  const figureOf = (box, isDark) => {
    const text = document.getElementById(box.dataset.figure).textContent;
    return JSON.parse(isDark ? text.replace(/#[0-9A-F]{6}\b|rgba\(\d+,\d+,\d+/g, (c) => exchange[c] ?? c) : text);
  };
  const draw = (box, isDark = dark.matches) => {
    const figure = figureOf(box, isDark);
    box.dataset.drawn = "yes";
    return Plotly.react(box, figure.data, figure.layout, config);
  };
  const redraw = (isDark) => plots.forEach((box) => { if (box.dataset.drawn) draw(box, isDark); });

  if ("IntersectionObserver" in window) {
    const watch = new IntersectionObserver((entries) => entries.forEach((entry) => {
      if (entry.isIntersecting) { watch.unobserve(entry.target); draw(entry.target); }
    }), { rootMargin: "300px" });
    plots.forEach((box) => watch.observe(box));
  } else {
    plots.forEach((box) => draw(box));
  }
  dark.addEventListener("change", () => redraw(dark.matches));
  // paper is white, and what was never scrolled to is printed too
  window.addEventListener("beforeprint", () => plots.forEach((box) => draw(box, false)));
  window.addEventListener("afterprint", () => redraw(dark.matches));

  const contents = document.querySelector("nav details");
  const wide = window.matchMedia("(min-width: 1080px)");
  const fold = () => { contents.open = wide.matches; };
  fold();
  wide.addEventListener("change", fold);
  contents.addEventListener("click", (event) => {
    if (event.target.tagName === "A" && !wide.matches) contents.open = false;
  });

  document.querySelectorAll("button.copy").forEach((button) => button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    const said = button.textContent;
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      window.getSelection().selectAllChildren(code); // no clipboard in a sandboxed frame: the reader presses Ctrl-C
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = said; }, 1500);
  }));

  document.querySelectorAll("table.sortable").forEach((table) => {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    const value = (row, k) => row.cells[k].dataset.v ?? row.cells[k].textContent;
    heads.forEach((head, k) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const numeric = head.classList.contains("n");
        const empty = (v) => v === "" || (numeric && Number.isNaN(Number(v)));
        const sorted = [...rows].sort((a, b) => {
          const [x, y] = [value(a, k), value(b, k)];
          if (empty(x) || empty(y)) return empty(x) - empty(y); // what is missing stays below
          return (numeric ? x - y : x.localeCompare(y)) * (up ? 1 : -1);
        });
        body.append(...sorted);
      });
    });
    const input = document.getElementById(table.dataset.filter);
    const count = document.getElementById(table.dataset.count);
    input?.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row) => {
        const text = `${row.textContent} ${row.lastElementChild.dataset.v ?? ""}`.toLowerCase(); // whole run id
        row.hidden = !words.every((word) => text.includes(word));
        shown += !row.hidden;
      });
      count.textContent = `${shown} of ${rows.length} shown`;
    });
  });
})();
