// A slider through pictures that are on the page. Without this script, all of them are shown.
for (const box of document.querySelectorAll(".layer-slider")) {
  const figures = [...box.querySelectorAll("figure")];
  const captions = figures.map((one) => one.querySelector(".caption-text").textContent.trim());

  const label = document.createElement("label");
  const slider = Object.assign(document.createElement("input"), {
    type: "range",
    min: 0,
    max: figures.length - 1,
    step: 1,
    // The page begins in the middle, whatever the browser remembers of another visit.
    autocomplete: "off",
    value: Math.floor(figures.length / 2),
  });
  const number = document.createElement("output");
  label.append("Layer", slider, number);

  const show = () => {
    const at = Number(slider.value);
    figures.forEach((one, i) => { one.hidden = i !== at; });
    number.textContent = at;
    slider.setAttribute("aria-valuetext", captions[at]);
  };
  slider.addEventListener("input", show);
  show();
  box.prepend(label);
  box.classList.add("ready");
}
