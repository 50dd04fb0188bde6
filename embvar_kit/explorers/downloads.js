// Buttons that ask the kernel for a file, which the browser saves, or for code or the query of a
// link, which it copies.
function render({ model, el }) {
  const own = Math.random().toString(36).slice(2);  // another view of the same explorer stays quiet
  const said = document.createElement("span");
  said.setAttribute("role", "status");
  const buttons = model.get("buttons").map(([text, tooltip]) => {
    const button = document.createElement("button");
    button.className = "jupyter-button widget-button";
    button.textContent = text;
    button.title = tooltip;
    button.addEventListener("click", () => {
      said.textContent = "…";
      model.send({ wanted: text, view: own });
    });
    return button;
  });
  el.replaceChildren(...buttons, said);

  const save = (name, type, content) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  };
  const copy = async (code) => {
    const shown = document.createElement("code");
    shown.textContent = code;
    shown.className = "embvar-scroll";
    let how = "Copied: ";
    try {
      await navigator.clipboard.writeText(code);
    } catch {  // the page may not; the reader can
      how = "To copy: ";
    }
    said.replaceChildren(how, shown);
  };
  const answered = (message, buffers) => {
    if (message.view !== own) return;
    said.textContent = message.told;
    if (message.code) copy(message.code);
    // Without the token that opens the app: whoever follows the link needs one of their own.
    if (message.query) copy(`${location.origin}${location.pathname}?${message.query}`);
    if (message.name) save(message.name, message.type, buffers[0]);
  };
  model.on("msg:custom", answered);
  return () => model.off("msg:custom", answered);
}
export default { render };
