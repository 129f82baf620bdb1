// Tables that sort by their headings and are filtered by a field of their own.
const numeric = (cell) => {
  const value = cell?.dataset.value;
  return value === undefined || value === "" ? NaN : Number(value);
};
const compared = (a, b) => {
  const x = numeric(a), y = numeric(b);
  if (Number.isFinite(x) && Number.isFinite(y)) return x - y;
  const words = (cell) => cell?.textContent.trim() ?? "";
  return words(a).localeCompare(words(b), "en", { numeric: true });
};
// A row's notes (class "note") follow it wherever it goes.
const bundles = (body) => {
  const found = [];
  for (const row of body.rows) {
    if (row.classList.contains("note") && found.length) found.at(-1).push(row);
    else found.push([row]);
  }
  return found;
};
const sort = (table, column, ascending) => {
  const body = table.tBodies[0];
  const empty = (cell) => {
    const value = cell?.dataset.value;
    return !cell || (value === undefined ? !cell.textContent.trim() : value === "" || value === "NaN");
  };
  const rows = bundles(body);
  rows.sort(([a], [b]) => {
    const one = a.cells[column], other = b.cells[column];
    if (empty(one) || empty(other)) return Number(empty(one)) - Number(empty(other));
    return ascending ? compared(one, other) : compared(other, one);
  });
  body.append(...rows.flat());
};
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = Array.from(table.tHead?.rows[0]?.cells ?? []);
  headings.forEach((heading, column) => {
    if (heading.hasAttribute("data-fixed")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sorter";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const first = heading.dataset.first === "descending" ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = heading.getAttribute("aria-sort") === first ? other : first;
      headings.forEach((each) => each.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", order);
      sort(table, column, order === "ascending");
    });
  });
}
for (const field of document.querySelectorAll("input[data-filters]")) {
  const table = document.getElementById(field.dataset.filters);
  const body = table?.tBodies[0];
  if (!body) continue;
  const count = document.querySelector(`output[for="${CSS.escape(field.id)}"]`);
  const show = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = bundles(body);
    let shown = 0;
    for (const bundle of rows) {
      const text = bundle.map((row) => row.textContent).join(" ").toLowerCase();
      const kept = words.every((word) => text.includes(word));
      for (const row of bundle) row.hidden = !kept;
      shown += kept ? 1 : 0;
    }
    if (count) count.textContent = words.length ? `${shown} of ${rows.length}` : "";
  };
  field.addEventListener("input", show);
  field.closest(".filter")?.removeAttribute("hidden");
  show();
}
