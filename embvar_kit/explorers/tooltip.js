// Shows the text of the area of an explorer's picture that the mouse is over, and tells of clicks.
function render({ model, el }) {
  el.style.display = "none";
  const tip = document.createElement("div");
  tip.className = "embvar-tip";
  tip.setAttribute("role", "tooltip");
  document.body.append(tip);
  const at = (event) => {
    const explorer = el.closest(".embvar-explorer"), image = event.target;
    const ours = explorer?.contains(image) && image.matches(`img.${model.get("picture")}`);
    if (!ours) return -1;
    const box = image.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
    const found = model.get("areas").findIndex(([x0, y0, x1, y1]) =>
      x >= x0 && x < x1 && y >= y0 && y < y1);
    image.style.cursor = found >= 0 && model.get("clickable") ? "pointer" : image.style.cursor;
    if (found < 0 && image.style.cursor === "pointer") image.style.cursor = "";
    return found;
  };
  const move = (event) => {
    const found = at(event);
    tip.style.display = found >= 0 ? "block" : "none";
    if (found < 0) return;
    // What fills the screen covers all that is outside of it.
    const home = document.fullscreenElement ?? document.body;
    if (tip.parentElement !== home) home.append(tip);
    tip.textContent = model.get("areas")[found][4];
    const right = event.clientX + 14 + tip.offsetWidth < window.innerWidth;
    tip.style.left = `${right ? event.clientX + 14 : event.clientX - 14 - tip.offsetWidth}px`;
    tip.style.top = `${event.clientY + 14}px`;
  };
  const click = (event) => {
    const found = at(event);
    if (found < 0) return;
    move(event);  // a finger does not move before it clicks
    if (model.get("clickable")) model.send({ clicked: found });
  };
  document.addEventListener("mousemove", move);
  document.addEventListener("click", click);
  return () => {
    document.removeEventListener("mousemove", move);
    document.removeEventListener("click", click);
    tip.remove();
  };
}
export default { render };
