// Draws the charts of a report with Observable Plot: each when it comes into sight, and all of them before printing.
// A chart's data stand beside it as JSON; colours are those of the page, so that light, dark and paper need nothing here.
"use strict";
(() => {
  const FIRST = "var(--first)", SECOND = "var(--second)", PICK = "var(--pick)", RULE = "var(--soft)";
  const two = (names) => ({domain: names, range: [FIRST, SECOND], legend: names.length > 1});
  const short = (text, most = 26) => (text.length > most ? `${text.slice(0, most / 2 - 1)}…${text.slice(1 - most / 2)}` : text);
  const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
  const digits = (value) => Number(value.toPrecision(3)).toString();

  // Ticks are 1, 2, 5 times a power of ten, few of them, or round numbers where the axis spans less than a decade.
  const log = (values, label) => {
    const [low, high] = d3.extent(values.filter((value) => value > 0));
    const domain = [low / 1.15, high * 1.15];
    const powers = d3.range(Math.floor(Math.log10(domain[0])), Math.ceil(Math.log10(domain[1])) + 1);
    const inside = (digits) => powers.flatMap((power) => digits.map((digit) => digit * 10 ** power))
      .filter((tick) => tick >= domain[0] && tick <= domain[1]);
    const ticks = [inside([1, 2, 5]), inside([1])].find((each) => each.length < 11) ?? inside([1]).filter((_, i) => i % 2 === 0);
    return {type: "log", domain, label, ticks: ticks.length > 2 ? ticks : d3.ticks(...domain, 5), tickFormat: digits};
  };

  // Axes of their own for logarithmic scales: on those Plot leaves out labels that it finds too close.
  const labelled = (options) => {
    const marks = ["x", "y"].filter((name) => options[name]?.type === "log").flatMap((name) => {
      const {ticks, tickFormat, label} = options[name], side = name.toUpperCase();
      options[name] = {...options[name], axis: null};
      return [Plot[`grid${side}`]({ticks}), Plot[`axis${side}`](ticks, {text: (value) => tickFormat(value), label})];
    });
    return {...options, marks: [...marks, ...options.marks]};
  };

  // An axis with room around its values, also where all are the same.
  const roomy = (values, label) => {
    const [low, high] = d3.extent(values);
    const room = 0.18 * (high - low) || Math.max(1e-6, 0.01 * Math.abs(high));
    return {domain: [low - room, high + room], label, grid: true, ticks: 5, tickFormat: (value) => `${Number(value.toPrecision(4))}`};
  };

  const kinds = {
    spread({series}) {
      const points = series.flatMap(({name, ms}) => ms.map((value, at) => ({name, ms: value, share: at / (ms.length - 1)})));
      const middles = series.map(({name, ms}) => ({name, ms: ms[(ms.length - 1) / 2]})).sort((a, b) => a.ms - b.ms);
      const beside = (side) => ({dx: 9 * side, textAnchor: side < 0 ? "end" : "start"});
      return {
        height: 260,
        x: log(points.map((point) => point.ms), "ms"),
        y: {label: "share of runs", domain: [0, 1], tickFormat: percent, ticks: 5, grid: true},
        color: two(series.map(({name}) => name)),
        marks: [
          Plot.line(points, {x: "ms", y: "share", stroke: "name", strokeWidth: 2, curve: "step-after"}),
          Plot.dot(middles, {x: "ms", y: 0.5, fill: "name", r: 4}),
          ...middles.map((point, at) => Plot.text([point], {x: "ms", y: 0.5, text: () => `${digits(point.ms)} ms`, ...beside(at || middles.length < 2 ? 1 : -1), ...halo})),
        ],
      };
    },
    operators({models, bars}, width) {
      const nodes = [...new Set(bars.map((bar) => bar.node))];
      return {
        height: 40 + nodes.length * (models.length > 1 ? 26 : 20),
        marginLeft: Math.min(190, width * 0.36),
        marginRight: 56,
        x: {label: "µs", grid: true},
        fy: {domain: nodes, label: null, tickFormat: (node) => short(node, width < 480 ? 18 : 26), padding: 0.15},
        y: {domain: models, axis: null, padding: 0},
        color: two(models),
        facet: {marginLeft: Math.min(190, width * 0.36)},
        marks: [
          Plot.barX(bars, {fy: "node", y: "model", x: "us", fill: "model"}),
          Plot.text(bars, {fy: "node", y: "model", x: "us", text: (bar) => digits(bar.us), dx: 4, textAnchor: "start", ...tick}),
          Plot.ruleX([0], {stroke: RULE}),
        ],
      };
    },
    roofline({models, points, roofs}) {
      const knees = roofs.map((roof) => roof.gops / roof.gbs);
      const [low, high] = d3.extent([...points.map((point) => point.intensity), ...knees]);
      const lines = roofs.flatMap(({dtype, gops, gbs}) =>
        [low / 1.15, gops / gbs, high * 1.15].map((x) => ({dtype, x, y: Math.min(gops, x * gbs)})));
      const ends = roofs.map(({dtype, gops, gbs}) => ({dtype, x: gops / gbs, y: gops}));
      return {
        height: 320,
        x: log([low, high], "operations per byte"),
        y: log([...points.map((point) => point.gops), ...lines.map((point) => point.y)], "Gop/s"),
        color: two(models),
        symbol: {domain: ["measured", "predicted"], range: ["circle", "times"], legend: points.some((p) => p.how === "predicted")},
        marks: [
          Plot.line(lines, {x: "x", y: "y", z: "dtype", stroke: RULE, strokeWidth: 1.5, sort: "x"}),
          ...ends.sort((a, b) => a.y - b.y).map((end, at) => Plot.text([end], {x: "x", y: "y", text: () => `${end.dtype} ${digits(end.y)} Gop/s`, textAnchor: at ? "end" : "start", dx: at ? -6 : 8, dy: at ? -4 : 12, fontSize: 11, ...halo})),
          Plot.dot(points, {x: "intensity", y: "gops", stroke: "model", symbol: "how", r: 4.5, strokeWidth: 2}),
          Plot.tip(points, Plot.pointer({x: "intensity", y: "gops", title: (p) => `${p.kernel} (${p.model})\n${digits(p.gops)} Gop/s, ${p.how}`, ...tip})),
        ],
      };
    },
    energy({rails, spans}) {
      const points = Object.entries(rails).flatMap(([rail, {s, watts}]) => s.map((at, i) => ({rail, s: at, watts: watts[i]})));
      const whats = [...new Set(spans.map((span) => span.what))];
      const tall = d3.max(points, (point) => point.watts) || 1;
      const shades = {idle: "transparent", original: FIRST};
      return {
        height: 280,
        x: {label: "seconds"},
        y: {label: "W", grid: true, domain: [0, tall * 1.05]},
        color: {domain: whats, range: whats.map((what) => shades[what] ?? SECOND), legend: whats.length > 1},
        marks: [
          Plot.rect(spans, {x1: "begin", x2: "end", y1: 0, y2: tall * 1.05, fill: "what", fillOpacity: 0.22}),
          Plot.line(points, {x: "s", y: "watts", z: "rail", stroke: "var(--ink)", strokeWidth: 1.2}),
          Plot.text(points, Plot.selectLast({x: "s", y: "watts", z: "rail", text: "rail", textAnchor: "end", dy: -8, ...halo})),
          Plot.ruleY([0], {stroke: RULE}),
        ],
      };
    },
    front({choices, metric}) {
      return {
        height: 300,
        marginRight: 30,
        x: {...log(choices.flatMap((choice) => [choice.low, choice.high]), "speed-up"), tickFormat: (x) => `${digits(x)}x`},
        y: roomy(choices.map((choice) => choice.metric), metric),
        marks: [
          Plot.line(choices.filter((choice) => choice.front), {x: "speedup", y: "metric", stroke: FIRST, strokeWidth: 2, sort: "speedup"}),
          Plot.ruleY(choices, {x1: "low", x2: "high", y: "metric", stroke: RULE}),
          Plot.dot(choices, {x: "speedup", y: "metric", r: 6, fill: (choice) => (choice.ships ? PICK : choice.front ? SECOND : "var(--card)"), stroke: "var(--ink)"}),
          ...[choices.filter((_, i) => i % 2 === 0), choices.filter((_, i) => i % 2)].map((half, below) =>
            Plot.text(half, {x: "speedup", y: "metric", text: (choice) => short(choice.name) + (choice.ships ? " (ships)" : ""), dy: below ? 15 : -14, ...halo})),
        ],
      };
    },
    tradeoffs({points, original, metric}) {
      const named = [...points.filter((point) => point.chosen).map((point) => ({...point, name: "chosen"})),
        ...(original ? [{ms: original.cost, metric: original.metric, name: "original"}] : [])];
      return {
        height: 300,
        x: {label: "mean latency, ms", grid: true, nice: true},
        y: {label: metric, grid: true, nice: true, inset: 12},
        marks: [
          Plot.dot(points, {x: "ms", y: "metric", fill: SECOND, r: 3}),
          Plot.dot(named, {x: "ms", y: "metric", r: 7, symbol: (p) => (p.name === "chosen" ? "diamond" : "square"), fill: PICK, stroke: "var(--ink)"}),
          Plot.text(named, {x: "ms", y: "metric", text: "name", dy: -14, fontWeight: 600, ...halo}),
        ],
      };
    },
    exits({bars}, width) {
      return {
        height: 40 + 30 * bars.length,
        marginLeft: Math.min(120, width * 0.3),
        marginRight: 110,
        x: {label: "share of rows", tickFormat: percent, grid: true, ticks: 5},
        y: {domain: bars.map((bar) => bar.exit), label: null, tickFormat: (exit) => short(exit, 16)},
        marks: [
          Plot.barX(bars, {x: "share", y: "exit", fill: SECOND, inset: 2}),
          Plot.text(bars, {x: "share", y: "exit", dx: 5, textAnchor: "start", text: (bar) => percent(bar.share) + (bar.ms === null ? "" : `, ${digits(bar.ms)} ms`), ...tick}),
          Plot.ruleX([0], {stroke: RULE}),
        ],
      };
    },
    sensitivity({bars, what}, width) {
      return {
        height: 40 + 20 * bars.length,
        marginLeft: Math.min(190, width * 0.36),
        marginRight: 50,
        x: {label: what.split(":")[0].split(", ").pop(), grid: true},
        y: {domain: bars.map((bar) => bar.layer), label: null, tickFormat: (layer) => short(layer, width < 480 ? 18 : 26)},
        marks: [
          Plot.barX(bars, {x: "value", y: "layer", fill: SECOND, inset: 1}),
          Plot.text(bars, {x: "value", y: "layer", text: (bar) => digits(bar.value), dx: 4, textAnchor: "start", ...tick}),
          Plot.ruleX([0], {stroke: RULE}),
        ],
      };
    },
    prediction({pairs}, width) {
      return {
        height: 60 + 44 * pairs.length,
        marginLeft: Math.min(150, width * 0.3),
        x: log(pairs.flatMap((pair) => [pair.low, pair.high, pair.measured]), "ms"),
        y: {domain: pairs.map((pair) => pair.model), label: null, tickFormat: (model) => short(model, 20)},
        color: {domain: ["predicted", "measured"], range: [FIRST, PICK], legend: true},
        marks: [
          Plot.ruleY(pairs, {x1: "low", x2: "high", y: "model", stroke: FIRST, strokeWidth: 6, strokeOpacity: 0.5}),
          Plot.dot(pairs, {x: "predicted", y: "model", fill: FIRST, r: 5}),
          Plot.dot(pairs, {x: "measured", y: "model", fill: PICK, symbol: "diamond", r: 6, stroke: "var(--card)"}),
        ],
      };
    },
    gains({points}) {
      return {
        height: 320,
        x: {...log([1, ...points.map((point) => point.speedup)], "speed-up"), tickFormat: (x) => `${digits(x)}x`},
        y: {label: `change of the metric, ${points[0].unit}`, grid: true, nice: true, inset: 8},
        symbol: {domain: [...new Set(points.map((point) => point.target))], legend: true},
        marks: [
          Plot.ruleX([1], {stroke: RULE}),
          Plot.ruleY([0], {stroke: RULE}),
          Plot.dot(points, {x: "speedup", y: "change", stroke: SECOND, strokeWidth: 2, r: 5, symbol: "target"}),
          Plot.tip(points, Plot.pointer({x: "speedup", y: "change", title: (p) => `${p.name}\n${digits(p.speedup)}x, ${digits(p.change)} ${p.unit}`, ...tip})),
        ],
      };
    },
    predictions({points}) {
      const scale = log(points.flatMap((point) => [point.predicted, point.measured]));
      return {
        height: 340,
        x: {...scale, label: "measured, ms"},
        y: {...scale, label: "predicted, ms"},
        symbol: {domain: [...new Set(points.map((point) => point.target))], legend: true},
        marks: [
          Plot.line([[scale.domain[0], scale.domain[0]], [scale.domain[1], scale.domain[1]]], {stroke: RULE}),
          Plot.ruleX(points, {x: "measured", y1: (p) => Math.max(p.low, scale.domain[0]), y2: (p) => Math.min(p.high, scale.domain[1]), stroke: FIRST, strokeOpacity: 0.6}),
          Plot.dot(points, {x: "measured", y: "predicted", stroke: SECOND, strokeWidth: 2, r: 4.5, symbol: "target"}),
          Plot.tip(points, Plot.pointer({x: "measured", y: "predicted", title: (p) => `${p.name}, ${p.model}\n${digits(p.predicted)} ms said, ${digits(p.measured)} ms found`, ...tip})),
        ],
      };
    },
  };
  const tick = {fill: "var(--soft)", fontSize: 11};
  const halo = {fill: "var(--ink)", stroke: "var(--page)", strokeWidth: 4, paintOrder: "stroke"};
  const tip = {fill: "var(--card)", stroke: "var(--soft)"};

  const dataOf = (figure) => JSON.parse(figure.querySelector(":scope > script").textContent);

  function draw(figure, width) {
    const canvas = figure.querySelector(".canvas");
    const data = figure.chosen ? figure.chosen(dataOf(figure)) : dataOf(figure);
    width ??= canvas.clientWidth;
    if (!width) return;
    const options = labelled(kinds[figure.dataset.kind](data, width));
    const style = {background: "transparent", color: "var(--ink)", fontSize: "12px", fontFamily: "inherit"};
    canvas.replaceChildren(Plot.plot({marginTop: 24, marginBottom: 38, marginLeft: 52, ...options, width, style}));
    // The canvas is one image with a text of its own; labels of its parts would be read as well.
    canvas.querySelectorAll("[aria-label]").forEach((part) => part.removeAttribute("aria-label"));
    figure.drawn = width;
  }

  const figures = [...document.querySelectorAll("figure[data-kind]")];
  const seen = new IntersectionObserver((entries) => {
    for (const {isIntersecting, target} of entries) if (isIntersecting && !target.drawn) draw(target);
  }, {rootMargin: "300px"});
  figures.forEach((figure) => seen.observe(figure));

  let waiting;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => figures.filter((f) => f.drawn && f.drawn !== f.querySelector(".canvas").clientWidth).forEach((f) => draw(f)), 150);
  });
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details.report").forEach((details) => (details.open = true));
    // All widths are read before anything is drawn: in between, every one would have the whole page laid out anew.
    const left = figures.filter((figure) => !figure.drawn).map((figure) => [figure, figure.querySelector(".canvas").clientWidth || 640]);
    left.forEach(([figure, width]) => draw(figure, width));
  });

  globalThis.edgewright = {figures, draw};
})();
