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
// Places, and the colours and opacities that come apart from them, as the points that the script
// knows. Of two messages, one may tell of other tokens than the other: those in both are drawn.
const joined = (places, looks) => {
  if (!places || !looks) return places;
  const numbers = ({ view: { buffer, byteOffset, byteLength } }) =>
    new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength));
  const parts = [places, looks].map((one) => [numbers(one), one.shape[1]]);
  const count = Math.min(places.shape[0], looks.shape[0]);
  const width = places.shape[1] + looks.shape[1], all = new Float32Array(count * width);
  for (let row = 0; row < count; row++) {
    let at = row * width;
    for (const [values, columns] of parts) {
      for (let i = 0; i < columns; i++) all[at++] = values[row * columns + i];
    }
  }
  return { view: new DataView(all.buffer), dtype: "float32", shape: [count, width] };
};
const whole = (model) => ({
  ...model,
  get: (name) =>
    name === "points" ? joined(model.get("points"), model.get("looks")) : model.get(name),
});
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
  return drawing.default.render({ ...context, model: whole(model) });
}
export default { render };
