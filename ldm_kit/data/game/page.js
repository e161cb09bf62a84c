// The board on a page of its own. What the player does is posted, what comes back is drawn. The server keeps nothing of
// this page, so a message without a reply is sent again until there is one.
import board from "./board.js";

const PAUSE = 2000; // milliseconds between two tries
let view = { phase: "wait" };
let turn = 0;
let drawn = () => {};
let busy = false;

function show(next) {
  view = { ...next, turn: ++turn };
  drawn();
}

async function post(message) {
  let problem;
  try {
    const reply = await fetch("play", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(message),
    });
    if (reply.ok) return await reply.json();
    problem = await reply.text();
    if (reply.status < 500) return { ...view, error: problem };
  } catch {
    problem = "The game does not answer.";
  }
  if (!view.waits) show({ ...view, player: message.player, error: `${problem} Trying again …`, waits: true });
  await new Promise((resolve) => setTimeout(resolve, PAUSE));
  return post(message);
}

async function send(message) {
  if (busy) return;
  busy = true;
  show(await post(message));
  busy = false;
}

board.render({
  model: { get: () => view, send, on: (_event, act) => { drawn = act; }, off: () => {} },
  el: document.querySelector("main"),
});
send({});
