// The top of a page with several reports: filter by name, target and verdict, and set the chosen ones side by side.
"use strict";
(() => {
  const told = document.getElementById("reports");
  if (!told) return;
  const reports = JSON.parse(told.textContent);
  const form = document.getElementById("filter"), chosen = document.getElementById("chosen");
  const boxes = [...document.querySelectorAll("#overview input[type=checkbox]")];
  const rowOf = new Map(boxes.map((box) => [box.value, box.closest("tr")]));
  const {figures, draw} = globalThis.edgewright;

  function fits(report) {
    const {text, target, status} = Object.fromEntries(new FormData(form));
    return `${report.model} ${report.ships}`.toLowerCase().includes(text.toLowerCase())
      && (!target || report.target === target) && (!status || report.status === status);
  }

  function filter() {
    const kept = new Set(reports.filter(fits).map((report) => report.id));
    for (const {id} of reports) {
      rowOf.get(id).hidden = !kept.has(id);
      document.querySelector(`[data-report="${id}"]`).hidden = !kept.has(id);
    }
    document.getElementById("shown").textContent = `${kept.size} of ${reports.length} reports are shown.`;
    for (const figure of figures.filter((each) => each.id.startsWith("all-"))) {
      figure.chosen = (data) => ({points: data.points.filter((point) => kept.has(point.id))});
      const some = figure.chosen(JSON.parse(figure.querySelector(":scope > script").textContent)).points.length;
      figure.hidden = !some;
      if (figure.drawn && some) draw(figure);
    }
  }

  const make = (name, ...children) => {
    const found = document.createElement(name);
    found.append(...children);
    return found;
  };
  const head = (scope, ...children) => Object.assign(make("th", ...children), {scope});

  function compare() {
    const picked = boxes.filter((box) => box.checked).map((box) => reports.find((report) => report.id === box.value));
    document.getElementById("comparison").hidden = picked.length < 2;
    const quantities = [...new Set(picked.flatMap((report) => Object.keys(report.rows)))];
    const cell = (report, name) => make("td", ...(report.rows[name] ?? ["-"]).filter((text) => text !== "-").flatMap((text, i) => (i ? [make("br"), text] : [text])));
    const first = make("tr", head("col", "quantity"), ...picked.map((report) => head("col", `${report.model} on ${report.target}`)));
    const lines = [["verdict", (report) => make("td", `${report.status}: ${report.ships}`)],
      ["device", (report) => make("td", report.device)],
      ...quantities.map((name) => [name, (report) => cell(report, name)])];
    const rows = lines.map(([name, of]) => make("tr", head("row", name), ...picked.map(of)));
    const table = make("table", make("thead", first), make("tbody", ...rows));
    const scroll = Object.assign(make("div", table), {className: "scroll", tabIndex: 0});
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", "The chosen reports side by side");
    chosen.replaceChildren(scroll);
  }

  function follow() {
    const at = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const details = at?.closest("details.report");
    if (!details) return;
    details.open = true;
    at.scrollIntoView();
  }

  form.hidden = false;
  boxes.forEach((box) => (box.disabled = false));
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("overview").addEventListener("change", compare);
  addEventListener("hashchange", follow);
  follow();
})();
