// The box of a table that is wider than the text is a region with a name, so that somebody who
// reaches it with Tab, which the theme sees to, is told what it is and how the rest comes into view.
const BOXES = ".pst-scrollable-table-container, .cell_output > .output";

const headingOf = (box) => {
  for (let part = box; part; part = part.parentElement) {
    const heading = part.querySelector(":scope > :is(h1, h2, h3, h4, h5, h6)");
    if (heading) {
      const text = heading.cloneNode(true);
      text.querySelectorAll(".headerlink, mjx-assistive-mml").forEach((one) => one.remove());
      return text.textContent.trim();
    }
  }
  return document.title;
};

const names = new Map();  // of two tables under one heading, the second says so
const number = new Map();
for (const table of document.querySelectorAll(".bd-article table")) {
  const box = table.closest(BOXES);
  if (!box || names.has(box)) continue;
  const heading = headingOf(box);
  number.set(heading, (number.get(heading) ?? 0) + 1);
  names.set(box, `Table ${number.get(heading)} of “${heading}”, wider than the text`);
}

const name = (box) => {
  const wide = box.scrollWidth > box.clientWidth;
  box.classList.toggle("wide", wide);
  if (wide) {
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", names.get(box));
  } else {
    box.removeAttribute("role");
    box.removeAttribute("aria-label");
  }
};

const watch = new ResizeObserver((changes) => changes.forEach((change) => name(change.target)));
for (const box of names.keys()) watch.observe(box);
