"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const table = document.getElementById("table");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  rows.forEach((row, i) => { row.dataset.i = i; });
  const PAGE = 200, RUN = 5, TRAIN = 4, WORD = 9;
  let budget = data.budget, steps = data.goalSteps, all = false, column = -1, direction = 1;

  // ---- The rule of harness/analysis/verdict.py and run_hours.py, in the same order of operations.
  const WIDE = 1.5;
  // JSON has no infinity: the end of an interval that too few samples leave open is null.
  const open = x => x === null ? Infinity : x;
  function span(run) {
    const n = run.steps === undefined ? steps : run.steps, [sl, sm, sh] = run.step.map(x => open(x) * n);
    const [al, am, ah] = (run.answers || [0, 0, 0]).map(open);
    const mid = sm + am;
    const join = (a, b) => run.predicted ? Math.hypot(a, b) : a + b;
    return [run.load + Math.max(0, mid - join(sm - sl, am - al)), run.load + mid, run.load + mid + join(sh - sm, ah - am)];
  }
  function chosen(runs) {
    // Of several fine-tunes: one that fits, then the more accurate, then by scope.
    let best = null;
    for (const run of runs) {
      const hours = span(run), fits = hours[2] <= run.share * budget;
      const own = {run, hours, fits};
      if (!best || fits > best.fits || (fits === best.fits && (run.accuracy > best.run.accuracy ||
          (run.accuracy === best.run.accuracy && run.scope > best.run.scope)))) best = own;
    }
    return best;
  }
  function judge(cell) {
    const best = cell.runs ? chosen(cell.runs) : {}, [low, mid, high] = best.hours || [];
    if (cell.word !== undefined) best.word = cell.word;
    else if (low <= budget && budget < high && high > WIDE * low) best.word = best.run.predicted ? "unsure" : "unstable";
    else if (best.fits) best.word = "fits";
    else best.word = (best.run.answers ? mid : high) <= budget ? "tight" : "too slow";
    return best;
  }
  // As harness/analysis/ranking.py, by measured accuracies alone: the longest context that fits of every candidate.
  function pick() {
    const least = (a, b, keys) => { for (const key of keys) if (key(a) !== key(b)) return key(a) - key(b); return 0; };
    const fitting = [];
    for (const c of data.candidates) {
      const best = chosen(c.runs || data.cells[c.cell].runs);
      if (best.fits) fitting.push(Object.assign({hours: best.hours}, c));
    }
    fitting.sort((a, b) => least(a, b, [c => c.accuracy === undefined ? 0 : 1, c => c.context, c => -c.hours[2]]));
    const longest = [...new Map(fitting.map(c => [c.subject, c])).values()];
    const scored = longest.filter(c => c.accuracy !== undefined);
    if (scored.length) return scored.sort((a, b) => least(a, b, [c => -c.accuracy, c => c.hours[2]]))[0];
    return longest.sort((a, b) => least(a, b, [c => c.half ? 0 : 1, c => -c.params, c => -c.context, c => c.hours[1]]))[0];
  }

  // ---- Text
  function decimals(mid) { return mid >= 20 ? 0 : mid >= 2 ? 1 : mid >= 0.1 ? 2 : 3; }
  // As harness/digits.py: from a million on in units, so that a long number is as short as another.
  const LONG = 999999.5, UNITS = [["T", 1e12], ["G", 1e9], ["M", 1e6]];
  function long(value) {
    if (value >= 999.5e12) return ">999T";
    const [name, unit] = UNITS.find(([, own]) => value >= 0.9995 * own);
    return (value / unit).toPrecision(3) + name;
  }
  function hours(low, mid, high) {
    const d = decimals(mid);
    const text = x => !Number.isFinite(x) ? "inf" : x >= LONG ? long(x) : x.toFixed(d);
    return `${text(mid)} (${text(low)}-${text(high)})`;
  }
  function figures(value) {
    if (value >= LONG) return long(value);
    return value >= 999.5 ? value.toFixed(0) : value && value < 1e-4 ? "<0.0001" : String(Number(value.toPrecision(3)));
  }
  function numberIn(text) {
    const [, small, digits, unit] = text.match(/^([<>]?)([0-9.]+)([MGT]?)/) || [];
    const factor = (UNITS.find(([name]) => name === unit) || ["", 1])[1];
    return digits === undefined ? NaN : small === "<" ? 0 : parseFloat(digits) * factor;
  }
  function trained(cell) {
    const [fixed, step, half] = cell.train.map(open), mid = steps * step;
    return hours(fixed + mid * Math.max(0, 1 - half), fixed + mid, fixed + mid * (1 + half));
  }
  function put(cell, text) { if (cell.textContent !== text) cell.textContent = text; }

  function judgeAll() {
    const counts = new Map();
    data.cells.forEach((cell, i) => {
      const own = judge(cell), cells = rows[i].cells;
      counts.set(own.word, (counts.get(own.word) || 0) + 1);
      put(cells[WORD], own.word);
      cells[WORD].className = own.word.split(" ")[0].replace(/[^a-z]/g, "");
      if (own.hours) put(cells[RUN], `${hours(...own.hours)} ${own.run.mark}`);
      if (cell.train) put(cells[TRAIN], trained(cell));
    });
    const moved = budget !== data.budget || steps !== data.goalSteps;
    const list = [...counts].map(([word, n]) => `${n} ${word}`).join(", ");
    const best = pick(), within = document.getElementById("budget-text").textContent;
    let text = `${rows.length} cells: ${list}.`;
    if (moved) {
      text += best
        ? ` By ${best.accuracy === undefined ? "size" : "measured accuracy"} the best for ${within} and ${steps} steps: ${best.name} at ${best.context} tokens, ${figures(best.hours[1])} h (${figures(best.hours[0])} to ${figures(best.hours[2])}).`
        : ` None fits ${within} with ${steps} steps.`;
    }
    put(document.getElementById("judged"), text);
    document.getElementById("reset").hidden = !moved;
    Object.assign(document.documentElement.dataset, {budget, steps});
    document.documentElement.dataset.best = best ? `${best.name} at ${best.context}` : "";
    words(counts);
    texts = rows.map(row => Array.from(row.cells, cell => cell.textContent).join(" ").toLowerCase());
    show();
  }

  // ---- Sliders: logarithmic, the record's own goal in the middle of neither.
  function slider(id, low, high, value, whole, set) {
    const input = document.getElementById(id), output = document.getElementById(id + "-text");
    const range = Math.log(high / low);
    const place = v => Math.round(1000 * Math.log(v / low) / range);
    const home = place(value), given = output.textContent;
    const text = v => v === value ? given : id === "budget" ? `${figures(v)} h` : String(v);
    const take = () => {
      const raw = low * Math.exp(range * input.value / 1000);
      const v = Number(input.value) === home ? value : whole ? Math.max(1, Number(raw.toPrecision(2))) : Number(raw.toPrecision(2));
      const shown = whole ? Math.round(v) : v;
      set(shown);
      output.textContent = text(shown);
      input.setAttribute("aria-valuetext", text(shown));
    };
    input.value = home;
    input.addEventListener("input", () => { take(); judgeAll(); });
    take();
    return () => { input.value = home; take(); };
  }
  const resets = [
    slider("budget", Math.min(0.25, data.budget / 8), Math.max(72, 4 * data.budget), data.budget, false, v => { budget = v; }),
    slider("steps", Math.min(10, data.goalSteps), Math.max(10000, 4 * data.goalSteps), data.goalSteps, true, v => { steps = v; }),
  ];
  document.getElementById("reset").addEventListener("click", () => { resets.forEach(r => r()); judgeAll(); document.getElementById("budget").focus(); });

  // ---- Sorting and filtering
  const filter = document.getElementById("filter"), word = document.getElementById("word");
  const order = document.getElementById("order"), more = document.getElementById("more");
  const headings = Array.from(table.tHead.rows[0].cells);
  const numeric = headings.map(h => h.classList.contains("n"));
  let texts = [];  // of the rows as they are judged now
  const collator = new Intl.Collator("en", {numeric: true});

  function words(counts) {
    const before = word.value;
    const names = [...counts.keys()];
    if (before && !counts.has(before)) names.push(before);
    word.replaceChildren(new Option("all", ""), ...names.map(name => new Option(`${name} (${counts.get(name) || 0})`, name)));
    word.value = before;
  }
  function sorted() {
    if (column < 0) return rows;
    const keyed = rows.map((row, i) => {
      const text = row.cells[column].textContent;
      return {row, i, key: numeric[column] ? numberIn(text) : text};
    });
    const missing = k => numeric[column] ? Number.isNaN(k) : k === "";
    keyed.sort((a, b) => {
      // What has no value stays at the end, whichever way it is sorted.
      if (missing(a.key) || missing(b.key)) return missing(a.key) - missing(b.key) || a.i - b.i;
      return direction * (numeric[column] ? a.key - b.key : collator.compare(a.key, b.key)) || a.i - b.i;
    });
    return keyed.map(k => k.row);
  }
  const place = new Map(rows.map((row, i) => [row, i]));
  function show() {
    const wanted = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fragment = document.createDocumentFragment();
    let matching = 0;
    for (const row of sorted()) {
      const text = texts[place.get(row)];
      const fits = wanted.every(w => text.includes(w)) && (!word.value || row.cells[WORD].textContent === word.value);
      if (fits) matching++;
      row.hidden = !fits || (!all && matching > PAGE);
      fragment.append(row);
    }
    body.append(fragment);
    const visible = all ? matching : Math.min(PAGE, matching);
    document.getElementById("shown").textContent = visible < rows.length ? `${visible} of ${rows.length} rows` : `${rows.length} rows`;
    more.hidden = visible >= matching;
    more.textContent = `Show all ${matching}`;
  }
  function sortBy(next, flip) {
    direction = flip && next === column ? -direction : 1;
    column = next;
    headings.forEach((h, i) => h.setAttribute("aria-sort", i !== column ? "none" : direction > 0 ? "ascending" : "descending"));
    order.value = column < 0 ? "" : String(column);
    show();
  }
  headings.forEach((h, i) => h.firstElementChild.addEventListener("click", () => sortBy(i, true)));
  order.addEventListener("change", () => sortBy(order.value === "" ? -1 : Number(order.value), false));
  filter.addEventListener("input", show);
  word.addEventListener("change", show);
  more.addEventListener("click", () => { all = true; show(); });
  window.addEventListener("beforeprint", () => { all = true; show(); });
  judgeAll();
})();
