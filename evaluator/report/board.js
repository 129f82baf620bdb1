// The columns of provenance are folded away until they are asked for.
for (const button of document.querySelectorAll("button[data-unfolds]")) {
  const table = document.getElementById(button.dataset.unfolds);
  if (!table) continue;
  const show = (open) => {
    table.classList.toggle("compact", !open);
    button.setAttribute("aria-expanded", String(open));
  };
  button.addEventListener("click", () => show(button.getAttribute("aria-expanded") !== "true"));
  button.hidden = false;
  show(false);
}
