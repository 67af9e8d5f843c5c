(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { solvers, parts, plans, images, teachers, timed } = data;
  const { $, node, kept, dark, themed, choice } = shared;
  const SVG = "http://www.w3.org/2000/svg";

  // Small things -----------------------------------------------------------------------------------------------------
  function shape(name, attributes = {}, text = null) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== null) made.textContent = text;
    return made;
  }
  function number(value, digits = 4) {
    if (value === null || value === undefined) return "";
    if (value === 0) return "0";
    const size = Math.abs(value);
    return size >= 1e5 || size < 1e-4 ? value.toExponential(digits - 2) : String(Number(value.toPrecision(digits)));
  }
  function short(value) {
    for (const [size, letter] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]])
      if (Math.abs(value) >= size) return number(value / (letter === "k" ? 1e3 : size), 3) + letter;
    return number(value, 3);
  }
  const grouped = (value) => String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, "\u202f");

  const colour = (solver) => (dark() ? solver.dark : solver.light);
  function setSwatches() {
    for (const each of document.querySelectorAll(".swatch[data-solver]")) {
      const solver = solvers[each.dataset.solver], svg = shape("svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true" });
      if (solver) svg.append(mark(solver, 5.2));
      each.replaceChildren(svg);
    }
  }

  // State ------------------------------------------------------------------------------------------------------------
  const state = {
    metric: kept.get("metric"), teacher: kept.get("teacher"), across: kept.get("across") || "nfe",
    scale: kept.get("scale") || "own", hidden: new Set(JSON.parse(kept.get("hidden") || "[]")),
  };
  for (const key of ["metric", "teacher"]) {
    const select = $(key);
    if (![...select.options].some((option) => option.value === state[key])) state[key] = select.options[0]?.value;
    select.value = state[key];
    select.addEventListener("change", () => { state[key] = select.value; kept.set(key, state[key]); choose(); });
  }
  // An option of teachers that the run varies, such as guidance, is an axis: its values begin with "=", so that none is "*".
  const axes = [...document.querySelectorAll("select.axis")];
  for (const select of axes) {
    const key = `axis ${select.dataset.axis}`, before = kept.get(key);
    if ([...select.options].some((option) => option.value === before)) select.value = before;
    select.addEventListener("change", () => { kept.set(key, select.value); choose(); });
  }
  const chosen = (name) => (state.teacher === "*" || teachers[name].model === state.teacher)
    && axes.every((select, k) => select.value === "*" || select.value === `=${teachers[name].values[k]}`);
  const firstOf = (known) => Object.keys(known).find(chosen) || Object.keys(known)[0];
  const shownParts = () => parts.filter((part) => part.metric === state.metric && chosen(part.teacher));
  function choose() {
    for (const each of document.querySelectorAll(".by-metric")) each.hidden = each.dataset.metric !== state.metric;
    for (const each of document.querySelectorAll(".by-part"))
      each.hidden = each.dataset.metric !== state.metric || !chosen(each.dataset.teacher);
    drawAll();
  }

  // Marks and axes ---------------------------------------------------------------------------------------------------
  // A solver's marker, as in every figure of the report: its shape and colour, hollow for every other variant.
  function mark(solver, r, more = {}) {
    const ink = colour(solver), hollow = solver.hollow;
    return shape("path", { d: outline(solver.marker, r), fill: hollow ? "var(--back)" : ink, stroke: hollow ? ink : "var(--back)", "stroke-width": hollow ? 1.6 : 0.8, ...more });
  }
  function polygon(count, r, turn = 0, inner = r) {
    const total = inner === r ? count : 2 * count;
    const at = (k) => {
      const angle = turn - Math.PI / 2 + (2 * Math.PI * k) / total, radius = inner !== r && k % 2 ? inner : r;
      return (radius * Math.cos(angle)).toFixed(2) + " " + (radius * Math.sin(angle)).toFixed(2);
    };
    return "M" + Array.from({ length: total }, (_, k) => at(k)).join("L") + "Z";
  }
  function outline(marker, r) {
    const bar = r * 0.42;
    const cross = [[-bar, -r], [bar, -r], [bar, -bar], [r, -bar], [r, bar], [bar, bar], [bar, r], [-bar, r], [-bar, bar], [-r, bar], [-r, -bar], [-bar, -bar]];
    const along = (points) => "M" + points.map((p) => p.map((v) => v.toFixed(2)).join(" ")).join("L") + "Z";
    switch (marker) {
      case "s": return polygon(4, r * 1.2, Math.PI / 4);
      case "D": return polygon(4, r * 1.15);
      case "^": return polygon(3, r * 1.25);
      case "v": return polygon(3, r * 1.25, Math.PI);
      case "<": return polygon(3, r * 1.25, -Math.PI / 2);
      case ">": return polygon(3, r * 1.25, Math.PI / 2);
      case "p": return polygon(5, r * 1.15);
      case "d": return along([[0, -r * 1.4], [r * 0.85, 0], [0, r * 1.4], [-r * 0.85, 0]]);
      case "h": return polygon(6, r * 1.15);
      case "star4": return polygon(4, r * 1.55, 0, r * 0.775);
      case "star6": return polygon(6, r * 1.4, 0, r * 0.7);
      case "hourglass": return along([[-r, -r], [r, -r], [-r, r], [r, r]].map(([x, y]) => [1.25 * x, 1.25 * y]));
      case "bowtie": return along([[-r, -r], [-r, r], [r, -r], [r, r]].map(([x, y]) => [1.25 * x, 1.25 * y]));
      case "*": return polygon(5, r * 1.55, 0, r * 0.65);
      case "P": return along(cross);
      case "X": return along(cross.map(([x, y]) => [(x - y) * 0.707, (x + y) * 0.707]));
      default: return `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`;
    }
  }
  function linearTicks(low, high, most = 6) {
    const step = 10 ** Math.floor(Math.log10((high - low) / 2 || 1));
    for (const factor of [1, 2, 2.5, 5, 10, 20]) {
      const size = step * factor, first = Math.ceil(low / size - 1e-9), last = Math.floor(high / size + 1e-9);
      if (last - first < most) return Array.from({ length: last - first + 1 }, (_, k) => Number(((first + k) * size).toPrecision(12)));
    }
    return [low, high];
  }
  function logTicks(low, high, most = 7) {
    const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
    for (const parts_ of [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 5, 7], [1, 2, 3, 4, 5, 6, 7, 8, 9]]) {
      const ticks = [];
      for (let e = first; e <= last; e++) for (const m of parts_) {
        const tick = Number(`${m}e${e}`);
        if (tick >= low && tick <= high) ticks.push(tick);
      }
      if (ticks.length >= 3) return ticks.filter((_, k) => k % Math.ceil(ticks.length / most) === 0);
    }
    return linearTicks(low, high, most);
  }
  function axis(values, log, from, to, margin = 0.05) {
    const known = values.filter((v) => v !== null && Number.isFinite(v) && (!log || v > 0));
    if (!known.length) known.push(...(log ? [0.1, 10] : [0, 1]));
    const move = log ? Math.log10 : (v) => v;
    let low = move(Math.min(...known)), high = move(Math.max(...known));
    const room = Math.max((high - low) * margin, (log ? 0.06 : Math.abs(high) * 0.05 || 0.5) * (high - low ? 0.2 : 1));
    low -= room; high += room;
    const place = (v) => from + ((move(v) - low) / (high - low)) * (to - from);
    const back = log ? (v) => 10 ** v : (v) => v;
    place.low = back(low); place.high = back(high);
    place.ticks = log ? logTicks(place.low, place.high) : linearTicks(low, high);
    return place;
  }
  function spread(wanted, height, low, high) {
    const order = wanted.map((_, i) => i).sort((a, b) => wanted[a] - wanted[b]);
    const pools = [];
    order.forEach((i, k) => {
      pools.push([wanted[i] - height * k, 1]);
      while (pools.length > 1 && pools.at(-2)[0] >= pools.at(-1)[0]) {
        const [b, n] = pools.pop(), [a, m] = pools.pop();
        pools.push([(a * m + b * n) / (m + n), m + n]);
      }
    });
    const bases = pools.flatMap(([mean, count]) => Array(count).fill(Math.max(low, Math.min(mean, high - height * (order.length - 1)))));
    const placed = [];
    order.forEach((i, k) => { placed[i] = bases[k] + height * k; });
    return placed;
  }

  // The numbers at points, none over another, and over as few points as can be; one without a place is left out.
  function scattered(numbers, box) {
    const taken = [], found = [], high = 11;
    for (const { px, py, text, ink } of numbers) {
      const wide = 7.2 * text.length;
      let best = null, least = Infinity, turn = 0;
      for (const gap of [4, 8, 13]) for (const [right, up] of [[1, -1], [1, 1], [-1, -1], [-1, 1], [0, -1], [0, 1], [1, 0], [-1, 0]]) {
        const left = px + right * gap + ((right - 1) * wide) / 2, top = py + up * gap + ((up - 1) * high) / 2;
        const over = (b) => left < b.left + b.wide && b.left < left + wide && top < b.top + high && b.top < top + high;
        if (left < box.left || top < 0 || top + high > box.bottom || taken.some(over)) { turn++; continue; }
        const cost = numbers.filter((n) => left - 3 <= n.px && n.px <= left + wide + 3 && top - 3 <= n.py && n.py <= top + high + 3).length + 0.01 * turn++;
        if (cost < least) { least = cost; best = { left, top, wide }; }
      }
      if (!best) continue;
      taken.push(best);
      found.push({ left: best.left, base: best.top + high - 2, text, ink });
    }
    return found;
  }

  // The chart --------------------------------------------------------------------------------------------------------
  const ACROSS = {
    nfe: ["NFE", "NFE (denoiser calls per sample)", (p) => p.nfe],
    speed: ["images/s", "images per second, on the machine and batch of the run", (p) => p.speed],
    serial: ["serial calls", "serial calls per sample: calls that wait for one another", (p) => p.serial],
    latency: ["latency", "milliseconds per image: serial calls times the time of a call, on the machine and batch of the run", (p) => p.latency],
    calls: ["training calls", "network calls spent in training", (p) => p.calls],
  };
  const DASHES = ["", "6 3", "2 2", "7 2 2 2"];
  function drawChart() {
    const holder = $("chart"), shown = shownParts();
    holder.classList.toggle("many", shown.length > 1);
    const pieces = shown.map((part) => {
      const figure = node("figure");
      if (shown.length > 1 || part.number > 1)
        figure.append(node("figcaption", {}, part.title + (part.number > 1 ? `, part ${part.number}: measured unlike part 1` : "")));
      return figure;
    });
    holder.replaceChildren(...pieces);
    shown.forEach((part, k) => pieces[k].append(plot(part, pieces[k].clientWidth || 640, shown.length > 1)));
    const published = shown.some((part) => part.published.length);
    $("chart-note").textContent = [
      shown.length ? shown[0].label + "." : "No teacher of this run has these options.", "Bars are 95 % intervals; where none is seen it is smaller than its mark. A line breaks at a budget without a value.",
      published && state.across === "nfe" ? "Hollow: published numbers, by their own protocols." : "",
      state.across === "latency" ? `Calls that needn't wait for one another are taken to run side by side. Measured: ${timed.filter((each) => chosen(each.teacher)).map((each) => `${teachers[each.teacher].title}: ${each.text}`).join("; ")}.` : "",
      state.across === "speed" ? "Dotted: solvers that no other beats in both." : "",
      "With the figure in focus, arrow keys go through its points and Enter shows a point's protocol.",
    ].filter(Boolean).join(" ");
  }
  function plot(part, width, small) {
    const log = state.scale === "own" ? part.log : state.scale === "log";
    const [, title, x_of] = ACROSS[state.across];
    const visible = part.points.filter((p) => !state.hidden.has(solvers[p.solver].label));
    const points = visible.filter((p) => p.value !== null && x_of(p) !== null && (!log || p.value > 0));
    const below = log ? visible.filter((p) => p.value !== null && p.value <= 0 && x_of(p) !== null) : [];
    const hollow = state.across === "nfe"
      ? part.published.filter((p) => (p.solver < 0 || !state.hidden.has(solvers[p.solver].label)) && (!log || p.value > 0)) : [];
    const lines = part.lines.filter((line) => !log || line.value > 0);
    const labelled = width >= 560;
    const names = labelled ? [...new Set(points.map((p) => solvers[p.solver].label)), ...lines.map((line) => line.label)] : [];
    const most = Math.max(24, Math.min(60, Math.floor((width - 420) / 7)));  // letters of a label; the chart keeps 360 pixels
    const beside = labelled ? 37 + 6.9 * Math.min(most, Math.max(4, ...names.map((name) => name.length))) : 14;
    const height = small ? 250 : Math.max(360, labelled ? 17 * (new Set(points.map((p) => p.solver)).size + lines.length) + 90 : 0);
    const box = { left: 58, right: width - beside, top: 14, bottom: height - 44 };
    const y = axis([...points, ...lines, ...hollow].flatMap((p) => [p.value, p.low ?? null, p.high ?? null]), log, box.bottom, box.top);
    const across = [...new Set([...visible, ...hollow].map(x_of).filter((v) => v !== null && v !== undefined))].sort((a, b) => a - b);
    const x = axis(across, state.across !== "nfe", box.left, box.right, across.length > 1 ? 0.04 : 1);
    const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "application", "aria-label": `${part.label} on ${part.title} against ${title}. Arrow keys go through ${points.length} points.` });
    for (const tick of y.ticks) {
      svg.append(shape("line", { class: "rule", x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) }));
      svg.append(shape("text", { class: "soft", x: box.left - 7, y: y(tick) + 4, "text-anchor": "end" }, number(tick)));
    }
    let ticks = state.across === "nfe" ? across : x.ticks;
    const each = Math.ceil((ticks.length * (state.across === "nfe" ? 26 : 48)) / (box.right - box.left));
    ticks = ticks.filter((_, k) => k % Math.max(each, 1) === 0);
    for (const tick of ticks) {
      svg.append(shape("line", { class: "axis", x1: x(tick), x2: x(tick), y1: box.bottom, y2: box.bottom + 4 }));
      svg.append(shape("text", { class: "soft", x: x(tick), y: box.bottom + 18, "text-anchor": "middle" }, state.across === "nfe" ? String(tick) : short(tick)));
    }
    svg.append(shape("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
    svg.append(shape("text", { class: "soft", x: (box.left + box.right) / 2, y: height - 8, "text-anchor": "middle" }, width < 420 ? ACROSS[state.across][0] : title));
    if (!points.length) svg.append(shape("text", { class: "soft", x: (box.left + box.right) / 2, y: (box.top + box.bottom) / 2, "text-anchor": "middle" }, part.points.some((p) => p.status === "done" || p.status === "cached") ? "no value to show here; the table below says why" : "no finished cell to show here"));

    const labels = [];
    lines.forEach((line, k) => {
      if (line.low !== null && line.high !== null && (!log || line.low > 0))
        svg.append(shape("rect", { class: "band", x: box.left, width: box.right - box.left, y: y(line.high), height: Math.max(0, y(line.low) - y(line.high)) }));
      svg.append(shape("line", { class: "flat", x1: box.left, x2: box.right, y1: y(line.value), y2: y(line.value), "stroke-dasharray": ["6 4", "2 3", "8 3 2 3"][k % 3] }));
      labels.push([y(line.value), line.label, null]);
    });
    if (state.across === "speed") drawFront(svg, part, points, x, y);
    const marks = [], numbers = [];
    for (const index of new Set(visible.map((p) => p.solver))) {
      const solver = solvers[index], ink = colour(solver), own = visible.filter((p) => p.solver === index);
      let path = "", pen = false, last = null;
      for (const p of own) {
        const there = p.value !== null && x_of(p) !== null && (!log || p.value > 0);
        if (there) { path += `${pen ? "L" : "M"}${x(x_of(p)).toFixed(1)} ${y(p.value).toFixed(1)}`; last = p; }
        pen = there;
      }
      svg.append(shape("path", { d: path || "M0 0", fill: "none", stroke: ink, "stroke-width": solver.learned ? 2.2 : 1.5, "stroke-dasharray": DASHES[solver.dash], "data-solver": index, class: "series" }));
      for (const p of own.filter((p) => points.includes(p))) {
        const px = x(x_of(p)), py = y(p.value);
        if (p.low !== null && p.high !== null)
          svg.append(shape("line", { x1: px, x2: px, y1: y(log ? Math.max(p.low, y.low) : p.low), y2: y(p.high), stroke: ink, "stroke-width": 1.4 }));
        svg.append(mark(solver, 5, { transform: `translate(${px.toFixed(1)} ${py.toFixed(1)})`, class: "mark" }));
        if (state.across !== "nfe") numbers.push({ px, py, text: String(p.nfe), ink });
        marks.push({ px, py, p });
      }
      for (const p of below.filter((p) => p.solver === index))
        svg.append(shape("path", { d: outline("v", 4), transform: `translate(${x(x_of(p))} ${box.bottom - 3})`, fill: ink }));
      if (last) labels.push([y(last.value), solver.label, ink, solver]);
    }
    for (const { left, base, text, ink } of scattered(numbers, box))
      svg.append(shape("text", { x: left, y: base, fill: ink, class: "soft nfe" }, text));
    for (const p of hollow) {
      const solver = solvers[p.solver], ink = solver ? colour(solver) : "var(--soft)";
      svg.append(shape("path", { d: outline(solver ? solver.marker : "o", 6.5), transform: `translate(${x(p.nfe).toFixed(1)} ${y(p.value).toFixed(1)})`, fill: "none", stroke: ink, "stroke-width": 1.3, class: "published" }));
      marks.push({ px: x(p.nfe), py: y(p.value), p });
    }
    if (labelled) {
      const placed = spread(labels.map(([at]) => at), 16, box.top - 4, box.bottom + 10);
      labels.forEach(([at, text, ink, solver], k) => {
        svg.append(shape("path", { d: `M${box.right + 2} ${at.toFixed(1)}L${box.right + 12} ${placed[k].toFixed(1)}`, stroke: ink || "var(--soft)", fill: "none", "stroke-width": 0.8 }));
        if (solver) svg.append(mark(solver, 4.4, { transform: `translate(${box.right + 18} ${placed[k].toFixed(1)})`, class: "beside" }));
        const label = shape("text", { x: box.right + (solver ? 27 : 16), y: placed[k] + 4, class: ink ? "tag" : "tag soft" }, text.length > most ? text.slice(0, most - 1) + "…" : text);
        label.append(shape("title", {}, text));
        svg.append(label);
      });
    }
    explore(svg, part, marks);
    return svg;
  }
  function drawFront(svg, part, points, x, y) {
    if (part.ranked === false) return;
    const better = part.higher ? (a, b) => a > b : (a, b) => a < b;
    const front = points.filter((p) => !points.some((q) => q !== p && q.speed >= p.speed && !better(p.value, q.value) && (q.speed > p.speed || better(q.value, p.value))));
    front.sort((a, b) => a.speed - b.speed);
    if (front.length > 1)
      svg.append(shape("path", { class: "front", d: "M" + front.map((p) => `${x(p.speed).toFixed(1)} ${y(p.value).toFixed(1)}`).join("L") }));
  }
  function words(part, p) {
    if (p.row) return `${p.printed}, NFE ${p.nfe}: ${number(p.value, 6)}\npublished: ${p.row}\n${p.paper}, ${p.place}`;
    const extra = state.across === "speed" ? `\n${number(p.speed)} images/s` : state.across === "serial" ? `\n${p.serial} serial calls` : state.across === "calls" ? `\n${grouped(p.calls)} calls in training` : "";
    return `${solvers[p.solver].label}, NFE ${p.nfe}\n${p.shown}${extra}\n${part.count}\ncell ${p.cell || "not recorded"}`;
  }
  function explore(svg, part, marks) {
    let at = -1, ring = null;
    const order = [...marks].sort((a, b) => a.px - b.px || a.py - b.py);
    function show(mark, spoken) {
      ring?.remove();
      ring = shape("circle", { class: "ring", cx: mark.px, cy: mark.py, r: 9 });
      svg.append(ring);
      const scale = svg.getBoundingClientRect(), zoom = scale.width / svg.viewBox.baseVal.width;
      const tip = $("tip");
      tip.textContent = words(part, mark.p);
      tip.hidden = false;
      const wide = tip.offsetWidth, left = scale.left + mark.px * zoom + 14;
      tip.style.left = Math.max(4, left + wide > innerWidth - 6 ? left - wide - 28 : left) + "px";
      tip.style.top = Math.min(innerHeight - tip.offsetHeight - 6, scale.top + mark.py * zoom + 12) + "px";
      if (spoken) $("said").textContent = tip.textContent;
    }
    function hide() { $("tip").hidden = true; ring?.remove(); ring = null; }
    function nearest(event) {
      const scale = svg.getBoundingClientRect(), zoom = scale.width / svg.viewBox.baseVal.width;
      const mx = (event.clientX - scale.left) / zoom, my = (event.clientY - scale.top) / zoom;
      let best = null, least = 26;
      for (const mark of marks) {
        const away = Math.hypot(mark.px - mx, mark.py - my);
        if (away < least) { least = away; best = mark; }
      }
      return best;
    }
    svg.addEventListener("pointermove", (event) => { const mark = nearest(event); if (mark) show(mark); else hide(); });
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("click", (event) => { const mark = nearest(event); if (mark && !mark.p.row) detail(part, mark.p); });
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      if (!order.length) return;
      const mark = order[at];
      if (event.key === "ArrowRight") at = Math.min(order.length - 1, at + 1);
      else if (event.key === "ArrowLeft") at = Math.max(0, at - 1);
      else if (event.key === "Home") at = 0;
      else if (event.key === "End") at = order.length - 1;
      else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
        const up = event.key === "ArrowUp";
        const column = order.map((m, k) => [m, k]).filter(([m, k]) => mark && k !== at && Math.abs(m.px - mark.px) < 1 && (up ? m.py < mark.py : m.py > mark.py));
        if (at < 0) at = 0;
        else if (column.length) at = up ? column.at(-1)[1] : column[0][1];
      } else if (event.key === "Enter" && mark && !mark.p.row) { detail(part, mark.p); return; }
      else if (event.key === "Escape") { hide(); return; }
      else return;
      event.preventDefault();
      show(order[at], true);
    });
  }
  function legend() {
    $("legend").replaceChildren(...solvers.map((solver, index) => {
      const svg = shape("svg", { viewBox: "0 0 26 14", "aria-hidden": "true" });
      svg.append(shape("line", { x1: 0, x2: 26, y1: 7, y2: 7, stroke: colour(solver), "stroke-width": solver.learned ? 2.2 : 1.5, "stroke-dasharray": DASHES[solver.dash] }));
      svg.append(mark(solver, 4.4, { transform: "translate(13 7)" }));
      const button = node("button", { type: "button", "aria-pressed": !state.hidden.has(solver.label), "data-solver": index }, svg, solver.label);
      button.addEventListener("click", () => {
        if (!state.hidden.delete(solver.label)) state.hidden.add(solver.label);
        button.setAttribute("aria-pressed", !state.hidden.has(solver.label));
        kept.set("hidden", JSON.stringify([...state.hidden]));
        drawChart();
      });
      return button;
    }));
  }

  // One number's whole story -----------------------------------------------------------------------------------------
  function detail(part, p) {
    const solver = solvers[p.solver];
    $("detail-title").textContent = `${solver.label}, NFE ${p.nfe}, ${part.short} on ${part.title}`;
    const facts = [
      ["value", number(p.value, 7)], ["95 % interval", p.low === null ? "" : `${number(p.low, 6)} to ${number(p.high, 6)}`],
      ["standard error", number(p.error, 3)], ["metric", part.label], ["status", p.status], ["why there is no value", p.reason],
      ["images", part.count], ["seeds", part.seeds], ["reference", part.reference], ["extractor", part.extractor],
      ["uint8 by", part.quantiser], ["interval is", part.interval], ["solver, written out", p.spec], ["cell key", p.cell],
      ["network passes per image", p.passes === null ? "" : String(p.passes)],
      ["serial calls", p.serial === null ? "" : String(p.serial)],
      ["images per second", number(p.speed)], ["latency, ms per image", number(p.latency)], ["training calls", p.calls === null ? "" : grouped(p.calls)],
    ];
    $("detail-list").replaceChildren(...facts.filter(([, value]) => value).flatMap(([name, value]) => [node("dt", {}, name), node("dd", {}, value)]));
    $("detail").showModal();
  }

  // Tables -----------------------------------------------------------------------------------------------------------
  function sortable(table) {
    const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
    heads.forEach((head, column) => {
      if (!head.hasAttribute("data-sort")) return;
      const button = node("button", { type: "button" }, ...head.childNodes);
      head.replaceChildren(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const falling = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", falling ? "descending" : "ascending");
        const key = (row) => row.cells[column].dataset.value;
        const rows = [...body.rows];
        const numeric = rows.some((row) => key(row) !== undefined) || rows.every((row) => /^-?[\d.]+(e[-+]?\d+)?$/i.test(row.cells[column].textContent.trim()));
        const value = (row) => (numeric ? Number(key(row) ?? (row.cells[column].textContent.trim() || NaN)) : row.cells[column].textContent.trim());
        rows.sort((a, b) => {
          const [u, v] = [value(a), value(b)];
          if (numeric) {
            if (Number.isNaN(u) || Number.isNaN(v)) return Number.isNaN(u) - Number.isNaN(v);  // what has no number stays last
            return falling ? v - u : u - v;
          }
          return falling ? v.localeCompare(u) : u.localeCompare(v);
        });
        body.append(...rows);
      });
    });
  }
  function gridKeys(table) {
    const buttons = () => [...table.querySelectorAll("button.number")];
    if (buttons().length) buttons()[0].tabIndex = 0;
    table.addEventListener("click", (event) => {
      const button = event.target.closest("button.number");
      if (button) detail(parts[button.dataset.part], parts[button.dataset.part].points[button.dataset.point]);
    });
    table.addEventListener("keydown", (event) => {
      const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
      const here = event.target.closest("button.number");
      if (!move || !here) return;
      event.preventDefault();
      const rows = [...table.tBodies[0].rows];
      let row = rows.indexOf(here.closest("tr")), column = here.closest("td").cellIndex;
      while (rows[(row += move[0])]?.cells[(column += move[1])]) {
        const next = rows[row].cells[column].querySelector("button.number");
        if (next) { here.tabIndex = -1; next.tabIndex = 0; next.focus(); return; }
      }
    });
  }
  $("every").addEventListener("toggle", () => {
    const holder = $("every").querySelector(".scroll");
    if (holder.firstChild) return;
    const head = ["teacher", "solver", "NFE", "metric", "value", "low", "high", "images", "seeds", "reference", "extractor", "cell key", "status"];
    const table = node("table", { class: "sortable text" }, node("thead", {}, node("tr", {}, ...head.map((name) => node("th", { scope: "col", "data-sort": "" }, name)))));
    const body = node("tbody");
    for (const part of parts) for (const p of part.points) {
      const texts = [part.title, solvers[p.solver].label, String(p.nfe), part.short, number(p.value, 6), number(p.low, 6), number(p.high, 6), part.count, part.seeds, part.reference, part.extractor, p.cell, p.status];
      const row = node("tr", {}, ...texts.map((text) => node("td", {}, text)));
      [[2, p.nfe], [4, p.value], [5, p.low], [6, p.high]].forEach(([k, v]) => { if (v !== null) row.cells[k].dataset.value = v; });
      body.append(row);
    }
    table.append(body);
    holder.append(table);
    sortable(table);
  });

  // Strips of images -------------------------------------------------------------------------------------------------
  const sheets = new Map();
  function sheet(uri) {
    if (!sheets.has(uri)) sheets.set(uri, new Promise((done) => {
      const image = new Image();
      image.onload = () => done(image);
      image.onerror = () => done(null);
      image.src = uri;
    }));
    return sheets.get(uri);
  }
  const strip = { nfe: null, solver: kept.get("strip solver"), view: kept.get("strip view") || "image" };
  const stripTeacher = () => firstOf(images);
  function setStrip() {
    if (!$("strip")) return;
    const own = images[stripTeacher()];
    const budgets = [...new Set(own.blocks.map((b) => b.nfe))].sort((a, b) => a - b);
    if (!budgets.includes(strip.nfe)) strip.nfe = budgets[0];
    choice($("strip-nfe"), budgets.map((nfe) => [nfe, "NFE " + nfe]), strip.nfe, (nfe) => { strip.nfe = nfe; setFlips(); });
    const views = [["image", "images"], ...(own.teacher ? [["difference", "difference from the teacher's, × 4"]] : [])];
    if (!views.some(([value]) => value === strip.view)) strip.view = "image";
    choice($("strip-view"), views, strip.view, (view) => { strip.view = view; kept.set("strip view", view); drawStrip(); });
    setFlips();
  }
  function setFlips() {
    const own = images[stripTeacher()], holder = $("strip-solver");
    const there = own.blocks.filter((b) => b.nfe === strip.nfe).map((b) => solvers[b.solver].label);
    const names = [...(own.teacher ? ["\u0000"] : []), ...there];
    if (!names.includes(strip.solver)) strip.solver = there[0];
    holder.replaceChildren(...names.map((name) => {
      const chosen = name === strip.solver;
      const text = name === "\u0000" ? `teacher, ${own.teacher.nfe} calls` : name;
      const button = node("button", { type: "button", role: "radio", "aria-checked": chosen, tabindex: chosen ? 0 : -1 }, text);
      button.addEventListener("click", () => { flip(name, false); });
      return button;
    }));
    holder.onkeydown = (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      flip(names[(names.indexOf(strip.solver) + step + names.length) % names.length], true);
    };
    function flip(name, focused) {
      strip.solver = name;
      kept.set("strip solver", name);
      [...holder.children].forEach((button, k) => {
        button.setAttribute("aria-checked", names[k] === name);
        button.tabIndex = names[k] === name ? 0 : -1;
        if (names[k] === name && focused) button.focus();
      });
      drawStrip();
    }
    drawStrip();
  }
  let strokes = 0;
  async function drawStrip() {
    const canvas = $("strip");
    if (!canvas) return;
    const mine = ++strokes, own = images[stripTeacher()];
    const block = strip.solver === "\u0000" ? own.teacher : own.blocks.find((b) => b.nfe === strip.nfe && solvers[b.solver].label === strip.solver);
    if (!block) return;
    const difference = strip.view === "difference" && block !== own.teacher;
    const [image, best] = await Promise.all([sheet(block.uri), difference ? sheet(own.teacher.uri) : null]);
    if (mine !== strokes || !image) return;
    const { side, count } = own, [tall, wide] = side, room = canvas.parentElement.clientWidth;
    const columns = Math.max(1, Math.min(count, Math.floor(room / Math.max(wide, 76))));
    const rows = Math.ceil(count / columns), gap = Math.max(1, Math.round(wide / 32));
    canvas.width = columns * (wide + gap) - gap; canvas.height = rows * (tall + gap) - gap;
    canvas.style.maxWidth = Math.min(room, columns * Math.max(wide, 150)) + "px";
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    for (let k = 0; k < count; k++) {
      const left = (k % columns) * (wide + gap), top = Math.floor(k / columns) * (tall + gap);
      pen.drawImage(image, k * wide, 0, wide, tall, left, top, wide, tall);
      if (!best) continue;
      const here = pen.getImageData(left, top, wide, tall);
      pen.drawImage(best, k * wide, 0, wide, tall, left, top, wide, tall);
      const goal = pen.getImageData(left, top, wide, tall);
      for (let i = 0; i < here.data.length; i += 4)
        for (let c = 0; c < 3; c++) here.data[i + c] = Math.min(255, 4 * Math.abs(here.data[i + c] - goal.data[i + c]));
      pen.putImageData(here, left, top);
    }
    const name = block === own.teacher ? `the teacher's own sampler, ${block.nfe} calls` : `${strip.solver}, NFE ${strip.nfe}`;
    canvas.setAttribute("aria-label", `${count} images of ${stripTeacher()} by ${name}`);
    $("strip-note").textContent = `${teachers[stripTeacher()].title}: ${name}${difference ? "; black where it is the teacher's image from the same noise, white from a difference of 64 of 255 on" : ""}`;
  }

  // Noise levels and weights -----------------------------------------------------------------------------------------
  const plan = { nfe: null, solver: null };
  const planTeacher = () => firstOf(plans);
  function setPlans() {
    if (!$("levels")) return;
    const own = plans[planTeacher()], budgets = [...new Set(own.map((p) => p.nfe))].sort((a, b) => a - b);
    if (!budgets.includes(plan.nfe)) plan.nfe = budgets[0];
    choice($("plan-nfe"), budgets.map((nfe) => [nfe, "NFE " + nfe]), plan.nfe, (nfe) => { plan.nfe = nfe; setPlanSolver(); });
    setPlanSolver();
  }
  function setPlanSolver() {
    const there = plans[planTeacher()].filter((p) => p.nfe === plan.nfe);
    if (!there.some((p) => p.solver === plan.solver)) plan.solver = (there.find((p) => solvers[p.solver].learned) ?? there[0]).solver;
    const select = $("plan-solver");
    select.replaceChildren(...there.map((p) => node("option", { value: p.solver }, solvers[p.solver].label)));
    select.value = plan.solver;
    select.onchange = () => { plan.solver = Number(select.value); drawMatrix(); };
    drawLevels();
    drawMatrix();
  }
  function drawLevels() {
    const holder = $("levels"), width = holder.clientWidth || 640;
    const there = plans[planTeacher()].filter((p) => p.nfe === plan.nfe);
    const height = 26 * there.length + 52, left = width < 560 ? 84 : 140;
    const x = axis(there.flatMap((p) => p.sigmas), true, width - 16, left, 0.04);
    const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Noise levels of ${there.length} solvers at NFE ${plan.nfe}` });
    for (const tick of x.ticks) {
      svg.append(shape("line", { class: "rule", x1: x(tick), x2: x(tick), y1: 6, y2: height - 40 }));
      svg.append(shape("text", { class: "soft", x: x(tick), y: height - 24, "text-anchor": "middle" }, number(tick)));
    }
    svg.append(shape("text", { class: "soft", x: (left + width) / 2, y: height - 5, "text-anchor": "middle" }, width < 560 ? "noise level σ of each call" : "noise level σ told to the network, in the order of the calls →"));
    there.forEach((p, k) => {
      const solver = solvers[p.solver], at = 20 + 26 * k;
      const most = Math.floor((left - 14) / 7);
      const text = shape("text", { x: left - 10, y: at + 4, "text-anchor": "end" }, solver.label.length > most ? solver.label.slice(0, most - 1) + "…" : solver.label);
      text.append(shape("title", {}, solver.label));
      svg.append(text);
      svg.append(shape("line", { class: "rule", x1: left, x2: width - 16, y1: at, y2: at }));
      p.sigmas.forEach((sigma, call) => {
        if (!(sigma > 0)) return;
        const point = mark(solver, 4.6, { transform: `translate(${x(sigma).toFixed(1)} ${at})` });
        point.append(shape("title", {}, `${solver.label}, call ${call}: σ = ${number(sigma, 5)}`));
        svg.append(point);
      });
    });
    holder.replaceChildren(svg);
  }
  function shade(value) {
    const part = Math.sign(value) * Math.sqrt(Math.min(1, Math.abs(value) / 2));  // the square root lets small weights be seen
    const [from, to] = dark() ? [[31, 33, 37], part < 0 ? [233, 120, 80] : [95, 165, 240]] : [[250, 250, 249], part < 0 ? [178, 62, 18] : [10, 82, 160]];
    const mix = from.map((v, k) => Math.round(v + (to[k] - v) * Math.abs(part)));
    return [`rgb(${mix})`, (mix[0] * 0.299 + mix[1] * 0.587 + mix[2] * 0.114) > 140 ? "#1c1c1a" : "#ffffff"];
  }
  function drawMatrix() {
    const found = plans[planTeacher()].find((p) => p.nfe === plan.nfe && p.solver === plan.solver);
    const size = found.rows.length, holder = $("matrix"), room = holder.clientWidth || 640;
    const side = Math.min(58, Math.floor((Math.min(room, 760) - 76) / size)), high = Math.min(side, 34);
    const width = 72 + size * side, height = 44 + size * high;
    const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Weights of ${solvers[plan.solver].label} at NFE ${plan.nfe}: ${size} rows` });
    svg.style.maxWidth = width + "px";
    for (let j = 0; j < size; j++)
      svg.append(shape("text", { class: "soft", x: 70 + (j + 0.5) * side, y: 18, "text-anchor": "middle" }, j ? `d${j - 1}` : "noise"));
    found.rows.forEach((row, k) => {
      svg.append(shape("text", { class: "soft", x: 62, y: 28 + (k + 0.5) * high + 4, "text-anchor": "end" }, k === size - 1 ? "sample" : `input ${k}`));
      row.forEach((weight, j) => {
        if (j > k) return;
        const [fill, ink] = shade(j ? weight : weight / (Math.abs(found.rows[0][0]) || 1));
        const cell = shape("rect", { x: 70 + j * side, y: 28 + k * high, width: side - 1, height: high - 1, fill });
        cell.append(shape("title", {}, `${k === size - 1 ? "sample" : "input " + k}, ${j ? "output " + (j - 1) : "noise"}: ${number(weight, 6)}`));
        svg.append(cell);
        if (side >= 40) {
          const text = shape("text", { x: 70 + (j + 0.5) * side, y: 28 + (k + 0.5) * high + 4, "text-anchor": "middle" }, number(weight, 2));
          text.style.fill = ink; text.style.fontSize = "11px"; text.style.pointerEvents = "none";
          svg.append(text);
        }
      });
    });
    holder.replaceChildren(svg);
  }

  // Copying ----------------------------------------------------------------------------------------------------------
  for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", async () => {
    const text = $(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(text);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });

  // Begin ------------------------------------------------------------------------------------------------------------
  function drawAll() {
    if (!parts.length) return;
    legend();
    drawChart();
    if ($("strip")) setStrip();
    if ($("levels")) setPlans();
  }
  const known = { serial: parts.some((part) => part.points.some((p) => p.serial !== null && p.serial !== p.nfe)), speed: parts.some((part) => part.points.some((p) => p.speed !== null)), latency: parts.some((part) => part.points.some((p) => p.latency !== null)), calls: parts.some((part) => part.points.some((p) => p.calls !== null)) };
  if (state.across !== "nfe" && !known[state.across]) state.across = "nfe";
  choice($("across"), Object.entries(ACROSS).filter(([key]) => key === "nfe" || known[key]).map(([key, [text]]) => [key, text]), state.across,
    (value) => { state.across = value; kept.set("across", value); drawChart(); });
  choice($("scale"), [["own", "automatic scale"], ["log", "log"], ["linear", "linear"]], state.scale,
    (value) => { state.scale = value; kept.set("scale", value); drawChart(); });
  for (const table of document.querySelectorAll("table.sortable")) sortable(table);
  for (const table of document.querySelectorAll("table.numbers")) gridKeys(table);
  let waiting = 0, wide = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === wide) return;
    wide = innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(drawAll, 120);
  });
  themed(() => { setSwatches(); drawAll(); });
  setSwatches();
  choose();
  // In a frame, whose page may not look inside, a redrawn report keeps its place by the frame's name.
  if (window !== top) {
    const [, at] = /^at (\d+)$/.exec(window.name) || [];
    if (at) scrollTo(0, Number(at));
    addEventListener("pagehide", () => { window.name = `at ${Math.round(scrollY)}`; });
  }
  document.documentElement.dataset.ready = "yes";
})();
