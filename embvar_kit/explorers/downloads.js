// Buttons that ask the kernel for a file, which the browser saves, or for code or the query of a
// link, which it copies.
const PATIENCE = 8000;  // milliseconds for which the kernel may be silent
const SILENT = "The kernel does not answer. If it is busy, this will be done once it is free; after " +
  "a restart, run the cell again.";

function render({ model, el }) {
  const own = Math.random().toString(36).slice(2);  // another view of the same explorer stays quiet
  let asked = 0, waiting = 0;  // how often a button was clicked: only the last click is answered
  const said = document.createElement("span");
  said.setAttribute("role", "status");
  const buttons = model.get("buttons").map(([text, tooltip]) => {
    const button = document.createElement("button");
    button.className = "jupyter-button widget-button";
    button.textContent = text;
    button.title = tooltip;
    button.addEventListener("click", () => {
      const silent = () => { said.textContent = SILENT; };
      said.textContent = "…";
      asked += 1;
      clearTimeout(waiting);
      waiting = setTimeout(silent, PATIENCE);
      try {
        model.send({ wanted: text, view: `${own} ${asked}` });
      } catch {  // the connection was cut, as by a restart
        clearTimeout(waiting);
        silent();
      }
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
    if (message.view !== `${own} ${asked}`) return;
    clearTimeout(waiting);
    said.textContent = message.told;
    if (message.code) copy(message.code);
    // Without the token that opens the app: whoever follows the link needs one of their own.
    if (message.query) copy(`${location.origin}${location.pathname}?${message.query}`);
    if (message.name) save(message.name, message.type, buffers[0]);
  };
  model.on("msg:custom", answered);
  return () => {
    clearTimeout(waiting);
    model.off("msg:custom", answered);
  };
}
export default { render };
