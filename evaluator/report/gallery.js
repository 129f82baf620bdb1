// The gallery: every sample of the run, filtered, sorted, paged; and one sample's panel.
const by = (id) => document.getElementById(id);
const make = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
};
const drawn = (tag, attributes = {}, text = "") => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
};
const shown = (value) => {
  if (value === null || value === undefined || !Number.isFinite(value)) return "—";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e7)) return value.toExponential(3).replace(/-/g, "−");
  const text = Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(5)));
  return text.replace("-", "−");
};

// A button that is disabled would lose the focus, and the keyboard its place.
const off = (id, is) => by(id).setAttribute("aria-disabled", String(is));

const begin = (data) => {
  // -- what is known of each row ----------------------------------------------------------------
  const keys = data.keys, num = keys.length, size = data.page_size;
  const spread = (spans) => spans.flatMap(([first, count]) => Array.from({ length: count }, (_, i) => first + i));
  const positions = spread(data.spans);
  const column = (coded) => (row) => coded && coded.codes[row] >= 0 ? coded.values[coded.codes[row]] : null;
  const text = Object.fromEntries(
    ["prompt", "negative_prompt", "error", "flaw", "class_label", "size"].map((name) => [name, column(data.texts[name])]),
  );
  const tags = Object.entries(data.tags).map(([name, coded]) => [name, column(coded)]);
  const truncated = new Set(data.truncated), large = new Set(data.large), crisp = new Set(data.crisp);
  const thumbnails = new Set(spread(data.thumbnails)), warming = new Set(spread(data.first_batches));
  const scores = data.scores.map((score) => ({ ...score, values: Float64Array.from(score.values, (v) => v ?? NaN) }));
  // A first batch compiles and warms up: its seconds say little of its prompts.
  const told = (score, row) => shown(score.values[row]) + (score.column === "seconds" && warming.has(positions[row]) ? " (first batch of its worker)" : "");
  const scoreNamed = new Map(scores.map((score) => [score.name, score]));
  const file = (folder, position, end = "") => {
    const name = `${folder}/${String(position).padStart(6, "0")}${end}.webp`;
    return data.inside ? data.inside[name] : name;
  };
  const words = (data.texts.prompt?.values ?? []).map((each) => each.toLowerCase());
  const prompts = data.texts.prompt?.codes;
  const lowKeys = keys.map((key) => key.toLowerCase());
  const rowOf = new Map(keys.map((key, row) => [`${key}/${data.indices[row]}`, row]));
  const nameOf = (row) => `${keys[row]}/${data.indices[row]}`;

  // -- the state, which the address keeps -------------------------------------------------------
  const fields = {
    q: by("filter"), only: by("filter-only"), score: by("filter-score"), low: by("filter-low"),
    high: by("filter-high"), sort: by("sort"), order: by("sort-order"),
  };
  const tagFields = Array.from(document.querySelectorAll("select.filter-tag"));
  tagFields.forEach((field) => { fields[`tag.${field.dataset.tag}`] = field; });
  const initial = Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, field.value]));
  let page = 0, order = [], open = null, returnTo = null;

  const address = (row = open) => {
    const state = new URLSearchParams();
    for (const [name, field] of Object.entries(fields)) {
      if (field.value !== initial[name]) state.set(name, field.value);
    }
    if (page) state.set("page", page + 1);
    const rest = state.toString();
    const head = row === null ? "#samples" : `#sample=${encodeURIComponent(nameOf(row)).replace(/%2F/g, "/")}`;
    return rest ? `${head}&${rest}` : head;
  };
  const keep = () => {
    const target = address();
    if (target !== location.hash && (target !== "#samples" || /^#samples?[=&]/.test(location.hash))) {
      history.replaceState(null, "", target);
    }
  };

  // -- which rows, in which order ---------------------------------------------------------------
  const has = {
    all: () => true,
    failed: (row) => text.error(row) !== null,
    flawed: (row) => text.flaw(row) !== null,
    truncated: (row) => truncated.has(row),
    picture: (row) => thumbnails.has(positions[row]),
  };
  const choose = () => {
    const sought = fields.q.value.toLowerCase().split(/\s+/).filter(Boolean);
    const matching = sought.length ? words.map((each) => sought.every((word) => each.includes(word))) : null;
    const tests = [has[fields.only.value] ?? has.all];
    if (matching) {
      tests.push((row) => matching[prompts?.[row]] || sought.every((word) => lowKeys[row].includes(word) || (words[prompts?.[row]] ?? "").includes(word)));
    }
    for (const field of tagFields) {
      if (field.value === "") continue;
      const coded = data.tags[field.dataset.tag], code = coded.values.indexOf(field.value);
      tests.push((row) => coded.codes[row] === code);
    }
    const score = scoreNamed.get(fields.score.value);
    const low = parseFloat(fields.low.value), high = parseFloat(fields.high.value);
    if (score && !Number.isNaN(low)) tests.push((row) => score.values[row] >= low);
    if (score && !Number.isNaN(high)) tests.push((row) => score.values[row] <= high);
    order = [];
    for (let row = 0; row < num; row++) if (tests.every((test) => test(row))) order.push(row);
    const sign = fields.order.value === "descending" ? -1 : 1;
    const sorted = scoreNamed.get(fields.sort.value)?.values;
    if (sorted) {
      order.sort((a, b) => {
        const x = sorted[a], y = sorted[b];
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || a - b;
        return sign * (x - y) || a - b;
      });
    } else if (sign < 0) order.reverse();
  };

  // -- the tiles --------------------------------------------------------------------------------
  const grid = by("gallery"), count = by("gallery-count"), pages = by("gallery-pages");
  const extra = () => scoreNamed.get(fields.sort.value) ?? scoreNamed.get(fields.score.value);
  const picture = (row, bigger = false) => {
    const position = positions[row];
    if (!thumbnails.has(position)) {
      const why = text.error(row) === null ? "no picture here" : "failed";
      return make("span", { class: "no-picture" }, why);
    }
    const source = bigger && large.has(position) ? file("images", position) : file("thumbs", position);
    return make("img", {
      src: source, alt: `Sample ${nameOf(row)}: ${text.prompt(row) ?? "no prompt"}`,
      loading: bigger ? null : "lazy", class: crisp.has(position) ? "crisp" : null,
    });
  };
  const marks = (row) => {
    const found = [];
    if (truncated.has(row)) found.push("prompt truncated");
    if (text.flaw(row) !== null) found.push(text.flaw(row).replace("_", " "));
    if (text.error(row) !== null) found.push("error");
    return found;
  };
  const tile = (row) => {
    const score = extra();
    const faint = make("div", { class: "faint" }, `${keys[row]} · ${data.indices[row]} · seed ${data.seeds[row]}`);
    for (const mark of marks(row)) faint.append(" · ", make("span", { class: "partial" }, mark));
    const caption = make("figcaption", {}, make("div", { class: "words" }, text.prompt(row) || "(no prompt)"), faint);
    if (score) caption.append(make("div", { class: "score" }, `${score.name}: ${told(score, row)}`));
    const link = make("a", { href: address(row), "data-row": row }, picture(row));
    return make("figure", { class: "tile", id: `sample-${positions[row]}` }, link, caption);
  };
  const show = () => {
    const last = Math.max(0, Math.ceil(order.length / size) - 1);
    page = Math.min(Math.max(page, 0), last);
    grid.replaceChildren(...order.slice(page * size, (page + 1) * size).map(tile));
    count.textContent = `${order.length.toLocaleString("en")} of ${num.toLocaleString("en")} samples`;
    pages.hidden = last === 0;
    by("page-number").value = page + 1;
    by("page-number").max = last + 1;
    by("page-count").textContent = `of ${(last + 1).toLocaleString("en")}`;
    off("page-previous", page === 0);
    off("page-next", page === last);
  };
  const update = (to = 0) => { choose(); page = to; show(); keep(); };
  const turn = (to) => { page = to; show(); keep(); };  // `show` keeps it within bounds

  // -- one sample -------------------------------------------------------------------------------
  const panel = by("sample-panel");
  const table = (caption, titles, rows, id) => {
    const head = make("tr", {}, ...titles.map((t, i) => make("th", { scope: "col", class: i ? "num" : null }, t)));
    const body = rows.map(([name, ...cells]) => make("tr", {}, make("th", { scope: "row", class: "text" }, name),
      ...cells.map((cell) => make("td", { class: "text" }, cell))));
    const made = make("table", { id }, make("caption", {}, caption), make("thead", {}, head), make("tbody", {}, ...body));
    head.querySelectorAll(".num").forEach((cell) => cell.removeAttribute("class"));
    return make("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": caption }, made);
  };
  const facts = (row) => {
    const found = [
      ["prompt", text.prompt(row)], ["negative prompt", text.negative_prompt(row)], ["class", text.class_label(row)],
      ["key", keys[row]], ["image index", data.indices[row]], ["seed", data.seeds[row]], ["size", text.size(row)],
      ["position in the plan", positions[row]], ["flaw", text.flaw(row)], ["error", text.error(row)],
      ["prompt truncated", truncated.has(row) ? "yes" : null],
      ...tags.map(([name, value]) => [`tag ${name}`, value(row)]),
    ];
    const list = make("dl", { id: "panel-facts" });
    for (const [name, value] of found) {
      if (value !== null && value !== "") list.append(make("dt", {}, name), make("dd", {}, String(value)));
    }
    return list;
  };
  const numbers = (row) => {
    const rows = scores.filter((s) => !Number.isNaN(s.values[row])).map((s) => [s.name, told(s, row), `${s.file}, ${s.column}`]);
    for (const near of data.nearest) {
      const name = column(near.names)(row);
      if (name !== null) rows.push([`${near.metric}: nearest image of the reference`, name, near.file]);
    }
    if (!rows.length) return make("p", { class: "missing" }, "No table of this run has a score of this sample.");
    return table("Scores of this sample, and the tables that hold them", ["Score", "Value", "Table and column"], rows, "panel-scores");
  };
  const nearest = (row) => {
    const shownBeside = data.nearest.flatMap((near) => {
      const name = column(near.names)(row);
      if (name === null) return [];
      const [number, small, said] = near.pictures[positions[row]] ?? [];
      const source = number && `nearest/${number}.webp`;
      const image = number
        ? make("img", { src: data.inside ? data.inside[source] : source, alt: `Nearest image of the reference: ${name}`, class: small ? "crisp" : null })
        : make("span", { class: "no-picture" }, "not shown");
      const lines = [said, near.measure, number ? "" : near.why].filter(Boolean).map((each) => make("div", { class: "faint" }, each));
      return [make("figure", {}, image, make("figcaption", {}, name, make("div", { class: "faint" }, `by ${near.metric}`), ...lines))];
    });
    if (!shownBeside.length) return [];
    const own = make("figure", {}, picture(row), make("figcaption", {}, "this sample"));
    return [make("h3", {}, "Nearest images of the reference"), make("div", { class: "beside", id: "panel-nearest" }, own, ...shownBeside),
      make("p", { class: "source" }, `From ${data.nearest.map((near) => near.file).join(", ")}.`)];
  };
  const chart = (title, steps, values, i) => {
    const points = steps.map((step, k) => [step, values[k]]).filter(([, v]) => v !== null);
    if (!points.length) return "";
    const width = 300, height = 150, left = 58, right = 12, top = 30, bottom = 30;
    const xs = points.map(([x]) => x), ys = points.map(([, y]) => y);
    const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const x = (v) => left + ((v - x0) / (x1 - x0 || 1)) * (width - left - right);
    const y = (v) => height - bottom - ((v - y0) / (y1 - y0 || 1)) * (height - top - bottom);
    const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img", "aria-label":
      `${title} by step: from ${shown(ys[0])} at step ${xs[0]} to ${shown(ys.at(-1))} at step ${xs.at(-1)}`,
      "font-family": "system-ui, sans-serif", "font-size": 11 });
    svg.append(drawn("text", { x: 6, y: 16, class: "title" }, title));
    for (const value of y0 === y1 ? [y0] : [y0, y1]) {
      svg.append(drawn("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }),
        drawn("text", { x: left - 5, y: y(value) + 4, "text-anchor": "end" }, shown(Number(value.toPrecision(4)))));
    }
    svg.append(drawn("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }),
      drawn("text", { x: left, y: height - 14, "text-anchor": "middle" }, String(x0)),
      drawn("text", { x: width - right, y: height - 14, "text-anchor": "end" }, String(x1)),
      drawn("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, "step"),
      drawn("polyline", { class: `line s${i}`, points: points.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" ") }));
    for (const [a, b] of points) {
      const dot = drawn("circle", { class: `dot s${i}`, cx: x(a).toFixed(1), cy: y(b).toFixed(1), r: 2.4 });
      dot.append(drawn("title", {}, `step ${a}: ${shown(b)}`));
      svg.append(dot);
    }
    return make("figure", {}, svg);
  };
  const latents = (row) => {
    const curves = data.details.curves[positions[row]];
    if (!curves) return [];
    const charts = data.details.measures.map((title, i) => chart(title, data.details.steps, curves[i], i % 6));
    return [make("h3", {}, "Latents"), make("div", { class: "charts small", id: "panel-latents" }, ...charts),
      make("p", { class: "source" }, "From latents.parquet.")];
  };
  const maps = (row) => {
    const found = data.details.maps[positions[row]];
    if (!found) return [];
    const rows = found.words.map((word, i) => make("figure", { class: "strip" }, make("figcaption", {}, word),
      make("img", { src: file("maps", positions[row], `-${String(i).padStart(2, "0")}`), loading: "lazy",
        alt: `Heat maps of “${word}”: ${found.columns.join(", step ").replace("all steps, step", "all steps, then step")}` })));
    const head = make("div", { class: "strip-head", "aria-hidden": "true" }, ...found.columns.map((each) => make("span", {}, each)));
    const box = make("div", { class: "scroll", id: "panel-maps", role: "region", tabindex: 0, "aria-label": "Heat maps by word and step" });
    box.append(make("div", { class: "strips" }, head, ...rows));
    return [make("h3", {}, "Attention by word and step"), box, make("p", { class: "source" },
      "From heatmaps.parquet; each map is scaled to its own maximum, bright is high. Columns are all steps together, then single steps.")];
  };
  const describe = (row) => {
    by("panel-title").textContent = `${keys[row]} · ${data.indices[row]}`;
    const place = order.indexOf(row);
    by("panel-place").textContent = place < 0 ? "" : `${(place + 1).toLocaleString("en")} of ${order.length.toLocaleString("en")}`;
    off("panel-previous", place <= 0);
    off("panel-next", place < 0 || place + 1 >= order.length);
    const image = make("div", { id: "panel-image", class: "big" }, picture(row, true));
    const sides = make("div", { class: "sides" }, image, make("div", {}, facts(row)));
    by("panel-body").replaceChildren(sides, ...nearest(row), make("h3", {}, "Scores"), numbers(row), ...maps(row), ...latents(row));
  };
  const enter = (row) => {
    open = row;
    describe(row);
    if (!panel.open) {
      returnTo = document.activeElement;
      panel.showModal();
    }
  };
  const leave = () => {
    const row = open;
    open = null;
    keep();
    const link = row === null ? null : grid.querySelector(`a[data-row="${row}"]`);
    (link ?? returnTo)?.focus();
  };
  const step = (by) => {
    const place = order.indexOf(open) + by;
    if (place < 0 || place >= order.length) return;
    if (Math.floor(place / size) !== page) { page = Math.floor(place / size); show(); }
    enter(order[place]);
    history.replaceState(null, "", address());
  };

  // -- the address, the fields, the keyboard ----------------------------------------------------
  const read = () => {
    const hash = location.hash;
    if (!/^#samples?(=|&|$)/.test(hash)) {
      if (panel.open) panel.close();
      return;
    }
    const state = new URLSearchParams(hash.slice(1));
    for (const [name, field] of Object.entries(fields)) {
      field.value = state.get(name) ?? initial[name];
      if (field.value === "" && initial[name] !== "") field.value = initial[name];
    }
    choose();
    const row = rowOf.get(state.get("sample") ?? "");
    page = (parseInt(state.get("page"), 10) || 1) - 1;
    if (row !== undefined && !state.has("page") && order.includes(row)) page = Math.floor(order.indexOf(row) / size);
    show();
    if (row === undefined) {
      if (panel.open) panel.close();
      if (hash !== "#samples" && !panel.open) by("samples").scrollIntoView();
    } else enter(row);
  };
  let waiting = 0;
  for (const field of Object.values(fields)) {
    field.addEventListener(field.tagName === "SELECT" ? "change" : "input", () => {
      clearTimeout(waiting);
      if (num > 5000 && field.tagName !== "SELECT") waiting = setTimeout(update, 120);
      else update();
    });
  }
  by("filter-clear").addEventListener("click", () => {
    for (const [name, field] of Object.entries(fields)) field.value = initial[name];
    update();
    fields.q.focus();
  });
  by("page-previous").addEventListener("click", () => turn(page - 1));
  by("page-next").addEventListener("click", () => turn(page + 1));
  by("page-number").addEventListener("change", (event) => turn((parseInt(event.target.value, 10) || 1) - 1));
  by("panel-previous").addEventListener("click", () => step(-1));
  by("panel-next").addEventListener("click", () => step(1));
  by("panel-close").addEventListener("click", () => panel.close());
  panel.addEventListener("close", leave);
  panel.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest(".scroll")) return;
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
  });
  addEventListener("hashchange", read);
  by("gallery-controls").hidden = false;
  choose();
  show();
  read();
  grid.dataset.ready = "true";
};
const rows = by("samples-data");
if (rows) begin(JSON.parse(rows.textContent));
