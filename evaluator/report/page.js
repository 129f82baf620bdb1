const box = document.querySelector(".filter");
const tiles = Array.from(document.querySelectorAll(".tile"));
if (box && tiles.length) {
  const field = box.querySelector("input");
  const count = box.querySelector("output");
  const texts = tiles.map((tile) => tile.textContent.toLowerCase());
  const show = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    tiles.forEach((tile, i) => {
      tile.hidden = !words.every((word) => texts[i].includes(word));
      shown += tile.hidden ? 0 : 1;
    });
    count.textContent = words.length ? `${shown} of ${tiles.length}` : "";
  };
  field.addEventListener("input", show);
  box.hidden = false;
  show();
}
