// A table wider than a sheet of paper is printed in pieces: each has as many columns as fit, after
// those that name a row. What is sorted, filtered or folded away on the screen is so on paper.
const ROOM = 700; // pixels between the margins of a sheet of A4, the narrowest that is usual
const numNames = (table) => {
  if (table.dataset.names) return Number(table.dataset.names);
  const row = Array.from(table.tBodies[0]?.rows ?? []).find((each) => !each.classList.contains("note"));
  return 1 + Math.max(0, Array.from(row?.cells ?? []).findIndex((cell) => cell.scope === "row"));
};
const columnsOf = (table) => {
  const widths = Array.from(table.tHead?.rows[0]?.cells ?? [], (cell) => cell.offsetWidth);
  const shown = widths.flatMap((width, i) => (width ? [i] : [])), names = shown.slice(0, numNames(table));
  const sum = (columns) => columns.reduce((total, i) => total + widths[i], 0);
  if (table.offsetWidth <= table.parentElement.clientWidth + 1 || shown.length <= names.length) return [];
  const pieces = [];
  for (const i of shown.slice(names.length)) {
    const last = pieces.at(-1);
    if (last && sum(last) + widths[i] <= ROOM) last.push(i);
    else pieces.push([...names, i]);
  }
  return pieces;
};
const piece = (table, columns, first) => {
  const made = table.cloneNode(false);
  const part = (row) => {
    const copy = row.cloneNode(false);
    let column = 0;
    for (const cell of row.cells) {
      const next = column + cell.colSpan, num = columns.filter((i) => column <= i && i < next).length;
      if (num) copy.append(Object.assign(cell.cloneNode(true), { colSpan: num }));
      column = next;
    }
    return copy;
  };
  const caption = document.createElement("caption");
  caption.textContent = first ? table.caption?.textContent ?? "" : "Further columns of the same rows.";
  const head = document.createElement("thead"), body = document.createElement("tbody");
  head.append(part(table.tHead.rows[0]));
  const rows = Array.from(table.tBodies[0].rows).filter((row) => !row.hidden && (first || !row.classList.contains("note")));
  body.append(...rows.map(part));
  made.append(caption, head, body);
  for (const each of [made, ...made.querySelectorAll("[id]")]) each.removeAttribute("id");
  return made;
};
const whole = () => {
  for (const box of document.querySelectorAll(".pieces")) box.remove();
  for (const box of document.querySelectorAll(".cut")) box.classList.remove("cut");
};
// What `measure` says while the page is as wide as paper and has its rules.
const onPaper = (measure) => {
  const rules = Array.from(document.styleSheets[0].cssRules).filter((rule) => rule.media?.mediaText === "print");
  for (const rule of rules) rule.media.mediaText = "all";
  document.body.style.width = `${ROOM}px`;
  try {
    return measure();
  } finally {
    document.body.style.removeProperty("width");
    for (const rule of rules) rule.media.mediaText = "print";
  }
};
addEventListener("beforeprint", () => {
  whole();
  const tables = Array.from(document.querySelectorAll(".scroll > table"));
  const wide = onPaper(() => tables.map((table) => [table, columnsOf(table)]));
  for (const [table, pieces] of wide) {
    if (!pieces.length) continue;
    const box = document.createElement("div");
    box.className = "pieces";
    box.append(...pieces.map((columns, i) => piece(table, columns, i === 0)));
    table.parentElement.classList.add("cut");
    table.parentElement.after(box);
  }
});
addEventListener("afterprint", whole);
