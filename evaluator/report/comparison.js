// Cards of pairs are filtered by a field of their own: `data-cards` names what they stand in.
for (const field of document.querySelectorAll("input[data-cards]")) {
  const cards = Array.from(document.getElementById(field.dataset.cards)?.querySelectorAll(".card") ?? []);
  if (!cards.length) continue;
  const texts = cards.map((card) => card.textContent.toLowerCase());
  const count = document.querySelector(`output[for="${CSS.escape(field.id)}"]`);
  const show = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    cards.forEach((card, i) => {
      card.hidden = !words.every((word) => texts[i].includes(word));
      shown += card.hidden ? 0 : 1;
    });
    if (count) count.textContent = words.length ? `${shown} of ${cards.length}` : "";
  };
  field.addEventListener("input", show);
  field.closest(".filter")?.removeAttribute("hidden");
  show();
}
