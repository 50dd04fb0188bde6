// Shows the text of the area of an explorer's picture that the mouse is over.
function render({ model, el }) {
  el.style.display = "none";
  const tip = document.createElement("div");
  tip.className = "embvar-tip";
  tip.style.cssText = "position:fixed; z-index:1000; pointer-events:none; display:none;" +
    "padding:3px 8px; background:#fff; color:#000; border:1px solid #888; font-size:12px;" +
    "white-space:pre";
  document.body.append(tip);
  const move = (event) => {
    const explorer = el.closest(".embvar-explorer");
    const image = event.target;
    if (!explorer || !explorer.contains(image) || !image.matches("img.embvar-picture")) {
      tip.style.display = "none";
      return;
    }
    const box = image.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
    const area = model.get("areas").find(([x0, y0, x1, y1]) =>
      x >= x0 && x < x1 && y >= y0 && y < y1);
    tip.style.display = area ? "block" : "none";
    if (!area) return;
    tip.textContent = area[4];
    const right = event.clientX + 14 + tip.offsetWidth < window.innerWidth;
    tip.style.left = `${right ? event.clientX + 14 : event.clientX - 14 - tip.offsetWidth}px`;
    tip.style.top = `${event.clientY + 14}px`;
  };
  document.addEventListener("mousemove", move);
  return () => { document.removeEventListener("mousemove", move); tip.remove(); };
}
export default { render };
