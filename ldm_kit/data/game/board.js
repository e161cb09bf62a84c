// The board of the odd-one-out game. It draws what `view` says and sends what the player does; it knows no rule.
// Nothing is loaded from anywhere: the images come with the view.

const DRAWN = ["svg", "line", "rect", "circle"];

function element(kind, attributes = {}, ...children) {
  const made = DRAWN.includes(kind) ? document.createElementNS("http://www.w3.org/2000/svg", kind) : document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, act] of Object.entries(value)) made.addEventListener(event, act);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function choice(one, side, view, answer) {
  const names = ["left", "middle", "right"];
  const open = view.phase === "play";
  const classes = ["ldm-picture", one.small && "ldm-small", view.choice === side && "ldm-chosen"];
  const image = element("img", { src: one.src, alt: `${names[side - 1]} image: ${one.alt}`, draggable: "false" });
  const below = [element("span", { class: "ldm-key" }, String(side))];
  if (!open) below.push(element("span", { class: "ldm-label" }, one.alt));
  const button = element(
    "button",
    {
      type: "button", class: classes.filter(Boolean).join(" "), disabled: !open, "data-side": side,
      "aria-keyshortcuts": String(side), "aria-pressed": open ? null : String(view.choice === side),
      on: { click: () => answer(side) },
    },
    image, ...below,
  );
  const who = (one.who || []).map((entry) => element("li", { class: entry.kind ? `ldm-${entry.kind}` : "" }, entry.text));
  const chosenBy = who.length ? [element("ul", { class: "ldm-who", "aria-label": `chose image ${side}` }, ...who)] : [];
  return element("div", {}, button, ...chosenBy);
}

// Who agreed with the player: a row for each of the others, with its share, interval, chance and the player's ceiling.
function agreement({ rows, chance, ceiling, caption }) {
  const at = (share) => `${100 * share}%`;
  const band = ceiling && element("rect", {
    class: "ldm-ceiling", x: at(ceiling[0]), width: at(Math.max(ceiling[1] - ceiling[0], 0.006)), height: "100%",
  });
  const drawn = rows.flatMap((row) => [
    element("span", {}, row.name),
    element(
      "svg", { role: "img", "aria-label": `${row.count}, interval ${row.low.toFixed(2)} to ${row.high.toFixed(2)}` },
      ...(band ? [band.cloneNode()] : []),
      element("line", { class: "ldm-chance", x1: at(chance), x2: at(chance), y2: "100%" }),
      element("line", { class: "ldm-interval", x1: at(row.low), x2: at(row.high), y1: "50%", y2: "50%" }),
      element("circle", { class: `ldm-${row.kind}`, cx: at(row.share), cy: "50%", r: 6 }),
    ),
    element("span", {}, row.count),
  ]);
  return [
    element("h4", {}, "Who chooses the same odd one as you?"),
    element("div", { class: "ldm-agreement" }, ...drawn), element("p", { class: "ldm-quiet" }, caption),
  ];
}

function nameForm(view, send) {
  const input = element("input", {
    class: "ldm-name", type: "text", maxlength: "40", "aria-label": "your name", placeholder: "your name",
    value: view.player || "", autocomplete: "off",
  });
  const start = () => send({ kind: "start", player: input.value });
  input.addEventListener("keydown", (event) => { if (event.key === "Enter") start(); });
  const go = element("button", { type: "button", class: "ldm-go ldm-start", on: { click: start } }, view.go);
  return element("div", { class: "ldm-row" }, input, go);
}

function draw(root, view, send, answer) {
  const parts = [element("h3", {}, view.title || "")];
  for (const line of view.lines || []) parts.push(element("p", {}, line));
  if (view.total) {
    parts.push(element("progress", { max: view.total, value: view.done, "aria-label": `${view.done} of ${view.total} answered` }));
  }
  if (view.images) {
    const three = view.images.map((one, index) => choice(one, index + 1, view, answer));
    parts.push(element("div", { class: "ldm-pictures", role: "group", "aria-label": view.title }, ...three));
  }
  if (view.agreement && view.agreement.rows.length) parts.push(...agreement(view.agreement));
  if (view.phase === "name") parts.push(nameForm(view, send));
  const status = element("p", { class: "ldm-said", role: "status", "aria-live": "polite" }, view.status || "");
  if (view.phase === "feedback" || view.phase === "end") {
    const next = view.go && element("button", { type: "button", class: "ldm-go ldm-next", on: { click: () => send({ kind: "next" }) } }, view.go);
    parts.push(element("div", { class: "ldm-row" }, ...(next ? [next] : []), status));
  } else parts.push(status);
  if (view.error) parts.push(element("p", { class: "ldm-error", role: "alert" }, view.error));
  if (view.hint) parts.push(element("p", { class: "ldm-quiet" }, view.hint));
  root.replaceChildren(...parts);
  root.dataset.phase = view.phase;
  root.dataset.done = view.done;
}

function render({ model, el }) {
  // JupyterLab's own shortcuts (1 to 6 make headings) leave this part of the page alone.
  const root = element("div", { class: "ldm-board", tabindex: "-1", "data-lm-suppress-shortcuts": "true" });
  el.append(root);
  let began = performance.now();
  let sent = "";

  // What the page shows goes along with each message: that, and the answers on disk, are all that a reply needs.
  const send = (message) => {
    const { player, game, phase } = model.get("view");
    model.send({ player, game, phase, ...message });
  };
  const answer = (side) => {
    const view = model.get("view");
    const once = `${view.player}/${view.trial}/${view.turn}`;
    if (view.phase !== "play" || sent === once) return;
    sent = once;
    send({ kind: "answer", trial: view.trial, choice: side, seconds: (performance.now() - began) / 1000 });
  };
  const onKey = (event) => {
    const view = model.get("view");
    if (event.target instanceof HTMLInputElement || event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
    if (view.phase === "play" && ["1", "2", "3"].includes(event.key)) {
      answer(Number(event.key));
      event.preventDefault();
    } else if (view.phase === "feedback" && event.key === "Enter" && !(event.target instanceof HTMLButtonElement)) {
      send({ kind: "next" });
      event.preventDefault();
    }
  };
  // Keys count while the board has the focus, and also where nothing else has it (a page of its own).
  const onDocument = (event) => {
    if (!root.contains(event.target) && document.activeElement === document.body && root.isConnected) onKey(event);
  };
  const update = () => {
    const view = model.get("view");
    const held = root.contains(document.activeElement) || document.activeElement === root;
    draw(root, view, send, answer);
    began = performance.now();
    if (!held) return;
    const next = view.phase === "feedback" || view.phase === "end" ? root.querySelector(".ldm-next") : null;
    const first = view.phase === "name" ? root.querySelector(".ldm-name") : null;
    (next || first || root).focus({ preventScroll: true });
  };
  root.addEventListener("keydown", onKey);
  document.addEventListener("keydown", onDocument);
  model.on("change:view", update);
  update();
  return () => {
    document.removeEventListener("keydown", onDocument);
    model.off("change:view", update);
  };
}

export default { render };
