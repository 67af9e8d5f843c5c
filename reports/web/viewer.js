(() => {
  const teachers = JSON.parse(document.getElementById("data").textContent);
  const { $, node, kept, themed, choice, several } = shared;
  const WIDTHS = [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024];
  const FEW = 4, SHOWN = 6; // seeds at first; pairs in each list of extremes
  const FLIP = 700; // milliseconds; WCAG 2.3.1 allows three flashes in a second
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  // State ------------------------------------------------------------------------------------------------------------
  let at = 0, teacher = teachers[0];
  let solvers, budgets, seeds, condition, view = "image", next = "a";
  let mode = kept.get("images mode") || "side", front = "a", timer = 0;
  const picked = { a: 0, b: 0 };
  const sizes = { zoom: null, large: null };

  // Drawing ----------------------------------------------------------------------------------------------------------
  const tables = [...document.querySelectorAll(".by-teacher")];
  const sources = tables.map((table) => {
    const found = [];
    for (const cell of table.querySelectorAll("td[data-block]")) found[cell.dataset.block] = cell.querySelector("img");
    return found;
  });
  // Draw image k of a block at (left, top), `wide` x `tall` pixels of the canvas.
  function stamp(pen, block, k, left, top, from = 0, to = 1) {
    const [tall, wide] = teacher.side, [high, broad] = teacher.blocks[block].side;
    const image = sources[at][block];
    if (!image.naturalWidth || to <= from) return;
    pen.drawImage(image, (k + from) * broad, 0, (to - from) * broad, high, left + from * wide, top, (to - from) * wide, tall);
  }
  // Replace what is at (left, top) by its difference from image k of another block, times 4.
  function subtract(pen, block, k, left, top) {
    const [tall, wide] = teacher.side, here = pen.getImageData(left, top, wide, tall);
    stamp(pen, block, k, left, top);
    const goal = pen.getImageData(left, top, wide, tall);
    for (let i = 0; i < here.data.length; i += 4)
      for (let c = 0; c < 3; c++) here.data[i + c] = Math.min(255, 4 * Math.abs(here.data[i + c] - goal.data[i + c]));
    pen.putImageData(here, left, top);
  }
  function sized(canvas, count, width) {
    const [tall, wide] = teacher.side, gap = count > 1 ? Math.max(1, Math.round(wide / 32)) : 0;
    canvas.width = count * (wide + gap) - gap;
    canvas.height = tall;
    canvas.style.width = `${(canvas.width * width) / wide}px`;
    canvas.style.height = `${(tall * width) / wide}px`;
    canvas.classList.toggle("smooth", width < 1.5 * wide);
    return { pen: canvas.getContext("2d", { willReadFrequently: true }), step: wide + gap };
  }
  const taught = () => teacher.blocks.findIndex((block) => block.teacher);
  const shownSeeds = () => teacher.seeds.map((_, k) => k).filter((k) => seeds.has(k) && (condition === "" || teacher.conditions[k] === condition));
  const isShown = (block) => block.teacher || (solvers.has(block.label) && budgets.has(block.nfe));
  const digits = (value) => String(Number(value.toPrecision(3)));
  const told = (k) => teacher.seeds[k] + (teacher.conditions.length ? `, ${teacher.conditions[k]}` : "");

  // The table of all cells -------------------------------------------------------------------------------------------
  function setUp(cell) {
    const block = Number(cell.dataset.block), canvas = node("canvas");
    const button = node("button", { type: "button", "data-of": block }, canvas);
    cell.querySelector("img").hidden = true;
    cell.prepend(button);
    button.addEventListener("click", () => { pick(next, block); next = next === "a" ? "b" : "a"; });
  }
  function drawSheet() {
    const chosen = shownSeeds(), goal = taught(), difference = view === "difference" && goal >= 0;
    for (const row of tables[at].querySelectorAll("tbody tr[data-solver]")) row.hidden = !solvers.has(teacher.solvers[row.dataset.solver]);
    for (const cell of tables[at].querySelectorAll("[data-nfe]")) cell.hidden = !budgets.has(Number(cell.dataset.nfe));
    const across = tables[at].querySelector(".own td");
    if (across) across.colSpan = Math.max(1, budgets.size);
    for (const button of tables[at].querySelectorAll("button[data-of]")) {
      const place = Number(button.dataset.of), block = teacher.blocks[place];
      if (!isShown(block)) continue;
      const { pen, step } = sized(button.firstChild, Math.max(1, chosen.length), width("zoom"));
      chosen.forEach((k, i) => {
        stamp(pen, place, k, i * step, 0);
        if (difference && place !== goal) subtract(pen, goal, k, i * step, 0);
      });
      const apart = button.parentElement.querySelector("small"), own = chosen.map((k) => block.rmse[k]);
      if (apart) apart.textContent = own.length ? `RMSE ${digits(Math.sqrt(own.reduce((sum, each) => sum + each * each, 0) / own.length))}` : "";
      const letters = ["a", "b"].filter((side) => picked[side] === place).join("").toUpperCase();
      if (letters) button.dataset.letter = letters; else delete button.dataset.letter;
      button.setAttribute("aria-label", `${block.about}${letters ? `, now ${letters}` : ""}: compare`);
    }
  }
  function filters() {
    several($("solvers"), teacher.solvers.filter((label) => teacher.blocks.some((b) => b.label === label && !b.teacher)).map((label) => [label, label]), solvers, changed);
    several($("budgets"), [...new Set(teacher.blocks.filter((b) => !b.teacher).map((b) => b.nfe))].sort((a, b) => a - b).map((nfe) => [nfe, `NFE ${nfe}`]), budgets, changed);
    several($("seeds"), teacher.seeds.map((name, k) => [k, name, teacher.conditions.length ? { title: teacher.conditions[k] } : {}]), seeds, changed);
    const views = [["image", "images"], ...(taught() >= 0 ? [["difference", "difference from the teacher's, × 4"]] : [])];
    choice($("view"), views, view, (value) => { view = value; drawSheet(); });
    const named = [...new Set(teacher.conditions)];
    $("condition-label").hidden = named.length < 2;
    $("condition").replaceChildren(new Option("all", ""), ...named.map((text) => new Option(text.length > 60 ? text.slice(0, 59) + "…" : text, text)));
    $("condition").value = condition;
  }

  // Two cells --------------------------------------------------------------------------------------------------------
  const MODES = [["side", "side by side"], ["slider", "slider"], ["flicker", "flicker"], ["difference", "difference, × 4"]];
  function pick(side, block) {
    picked[side] = block;
    $(side).value = block;
    $("said").textContent = `${side.toUpperCase()} is ${teacher.blocks[block].about}`;
    drawSheet();
    drawPair();
  }
  function caption(k, ...blocks) {
    const parts = blocks.filter(([, block]) => teacher.blocks[block].rmse.length)
      .map(([name, block]) => `${name} ${digits(teacher.blocks[block].rmse[k])}`);
    return node("figcaption", {}, told(k), ...(parts.length ? [node("br"), `RMSE ${parts.join(", ")}`] : []));
  }
  function picture(label, draw) {
    const canvas = node("canvas", { role: "img", "aria-label": label });
    draw(sized(canvas, 1, width("large")).pen);
    return canvas;
  }
  function drawPair() {
    const { a, b } = picked, names = [teacher.blocks[a].about, teacher.blocks[b].about];
    const split = Number($("split").value) / 100;
    $("split-label").hidden = mode !== "slider";
    $("flicker").hidden = mode !== "flicker";
    $("play").textContent = timer ? "Stop" : "Start";
    $("side").textContent = `${front.toUpperCase()}: ${front === "a" ? names[0] : names[1]}`;
    const how = { side: "A left, B right", slider: "A left of the edge, B right of it", flicker: "A and B in turn",
      difference: "black where both are equal, white from a difference of 64 of 255 on" }[mode];
    $("pair-said").textContent = shownSeeds().length === 0 ? "No seed is chosen above." : `A: ${names[0]}. B: ${names[1]}. Shown: ${how}.`;
    $("pairs").replaceChildren(...shownSeeds().map((k) => {
      const row = node("div", { class: "row" });
      if (mode === "side") for (const [block, name] of [[a, names[0]], [b, names[1]]])
        row.append(picture(`${told(k)}: ${name}`, (pen) => stamp(pen, block, k, 0, 0)));
      if (mode === "slider") row.append(picture(`${told(k)}: ${names[0]} left of the edge, ${names[1]} right of it`, (pen) => {
        stamp(pen, a, k, 0, 0, 0, split);
        stamp(pen, b, k, 0, 0, split, 1);
        pen.fillStyle = "#f5a000";
        const wide = teacher.side[1], line = wide / width("large");
        if (split > 0 && split < 1) pen.fillRect(split * wide - line / 2, 0, line, teacher.side[0]);
      }));
      if (mode === "flicker") {
        const block = front === "a" ? a : b;
        row.append(picture(`${told(k)}: ${teacher.blocks[block].about}`, (pen) => stamp(pen, block, k, 0, 0)));
      }
      if (mode === "difference") row.append(picture(`${told(k)}: difference of ${names[0]} and ${names[1]}`, (pen) => {
        stamp(pen, a, k, 0, 0);
        subtract(pen, b, k, 0, 0);
      }));
      return node("figure", {}, row, caption(k, ["A", a], ["B", b]));
    }));
  }
  function flip() { front = front === "a" ? "b" : "a"; drawPair(); }
  function play(on) {
    clearInterval(timer);
    timer = on ? setInterval(flip, FLIP) : 0;
    drawPair();
  }
  function setMode(value) {
    mode = value;
    kept.set("images mode", mode);
    play(mode === "flicker" && !calm.matches);
  }

  // Best and worst ---------------------------------------------------------------------------------------------------
  function drawExtremes() {
    const goal = taught(), chosen = shownSeeds();
    $("extremes").hidden = goal < 0;
    if (goal < 0) return;
    const found = teacher.blocks.flatMap((block, place) => (block.teacher || !isShown(block) ? [] : chosen
      .filter((k) => block.rmse.length).map((k) => ({ place, k, apart: block.rmse[k] }))));
    found.sort((x, y) => y.apart - x.apart || x.place - y.place || x.k - y.k);
    const show = (holder, some) => holder.replaceChildren(...some.map(({ place, k, apart }) => {
      const block = teacher.blocks[place], canvas = node("canvas");
      const { pen, step } = sized(canvas, 2, Math.max(64, width("zoom")));
      stamp(pen, place, k, 0, 0);
      stamp(pen, goal, k, step, 0);
      const button = node("button", { type: "button", "aria-label": `${block.about}, ${told(k)}, RMSE ${digits(apart)}: compare with the teacher's` }, canvas);
      button.addEventListener("click", () => {
        pick("a", place);
        pick("b", goal);
        $("pair").scrollIntoView();
        $("a").focus({ preventScroll: true });
      });
      return node("li", {}, node("figure", {}, button, node("figcaption", {}, node("strong", {}, `RMSE ${digits(apart)}`), ` ${block.about}`, node("br"), told(k))));
    }));
    show($("worst"), found.slice(0, SHOWN));
    show($("best"), found.slice(-SHOWN).reverse());
  }

  // Sizes ------------------------------------------------------------------------------------------------------------
  const width = (name) => WIDTHS[sizes[name]];
  function setSize(name, place) {
    sizes[name] = Math.max(0, Math.min(WIDTHS.length - 1, place));
    const factor = width(name) / teacher.side[1];
    $(name).max = WIDTHS.length - 1;
    $(name).value = sizes[name];
    $(`${name}-said`).textContent = `${width(name)} pixels, × ${digits(factor)}`;
    $(name).setAttribute("aria-valuetext", $(`${name}-said`).textContent);
  }
  const nearest = (wanted) => WIDTHS.findIndex((each, k) => each >= wanted || k === WIDTHS.length - 1);

  // Begin ------------------------------------------------------------------------------------------------------------
  function changed() { drawSheet(); drawPair(); drawExtremes(); }
  function choose(place) {
    at = place;
    teacher = teachers[at];
    tables.forEach((table, k) => { table.hidden = k !== at; });
    solvers = new Set(teacher.blocks.filter((b) => !b.teacher).map((b) => b.label));
    budgets = new Set(teacher.blocks.filter((b) => !b.teacher).map((b) => b.nfe));
    seeds = new Set(teacher.seeds.map((_, k) => k).slice(0, FEW));
    condition = "";
    const options = teacher.blocks.map((block, k) => [block.about, k]);
    for (const side of ["a", "b"]) $(side).replaceChildren(...options.map(([text, k]) => new Option(text, k)));
    const own = taught(), rest = options.map(([, k]) => k).filter((k) => k !== own);
    picked.a = rest[0];
    picked.b = own >= 0 ? own : rest[rest.length - 1];
    for (const side of ["a", "b"]) $(side).value = picked[side];
    setSize("zoom", nearest(Math.min(128, Math.max(48, teacher.side[1]))));
    setSize("large", nearest(Math.min(256, Math.max(128, teacher.side[1]))));
    filters();
    changed();
  }
  for (const each of document.querySelectorAll(".scripted")) each.hidden = false;
  for (const cell of document.querySelectorAll("td[data-block]")) setUp(cell);
  $("teacher").parentElement.hidden = teachers.length < 2;
  $("teacher").addEventListener("change", () => choose(Number($("teacher").value)));
  $("condition").addEventListener("change", () => {
    condition = $("condition").value;
    if (condition !== "") for (const k of teacher.seeds.keys()) seeds.add(k); // every seed with this condition
    filters();
    changed();
  });
  for (const [name, draw] of [["zoom", () => { drawSheet(); drawExtremes(); }], ["large", drawPair]])
    $(name).addEventListener("input", () => { setSize(name, Number($(name).value)); draw(); });
  for (const side of ["a", "b"]) $(side).addEventListener("change", () => pick(side, Number($(side).value)));
  $("swap").addEventListener("click", () => { const { a, b } = picked; pick("a", b); pick("b", a); });
  $("split").addEventListener("input", drawPair);
  $("flip").addEventListener("click", () => { play(false); flip(); });
  $("play").addEventListener("click", () => play(!timer));
  addEventListener("keydown", (event) => {
    const step = { "+": 1, "=": 1, "-": -1 }[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey || event.target.matches?.("select, input")) return;
    setSize("zoom", sizes.zoom + step);
    drawSheet();
    drawExtremes();
  });
  themed(() => {});
  if (!MODES.some(([value]) => value === mode)) mode = "side";
  choice($("mode"), MODES, mode, setMode);
  const images = sources.flat().map((image) => image.decode().catch(() => {}));
  Promise.all(images).then(() => {
    choose(0);
    setMode(mode);
    document.documentElement.dataset.ready = "yes";
  });
})();
