// Draws a scatter plot with a script that several plots share: it is two megabytes of text, which
// would go out with each of them, and less than a fifth of that when it is packed.
const unpack = async (packed) => {
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const text = await new Response(stream).text();
  const address = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  try {
    return await import(address);
  } finally {
    URL.revokeObjectURL(address);
  }
};
async function render(context) {
  const { model, el } = context, name = model.get("script").slice("IPY_MODEL_".length);
  const script = await model.widget_manager.get_model(name);
  script.embvarModule ??= unpack(script.get("packed"));
  let drawing;
  try {
    drawing = await script.embvarModule;
  } catch (error) {
    delete script.embvarModule;  // the next plot tries again
    el.textContent = `The plot cannot be drawn: its script could not be unpacked. ${error}`;
    return;
  }
  return drawing.default.render(context);
}
export default { render };
