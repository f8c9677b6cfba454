// Where the page begins: who serves, which view is open, which key is sent.

import { json, useKey } from "./api.js";
import { Chat } from "./chat.js";
import { byId, trouble } from "./elements.js";
import { Operator } from "./operator.js";

const chat = new Chat();
const operator = new Operator();

async function meet() {
  try {
    const about = await json("playground/about");
    byId("guard-name").textContent = about.guard.name;
    byId("guard-hash").textContent = about.guard.hash;
    byId("guard-mode").textContent = about.mode === "shadow" ? "shadow: nothing is blocked" : "enforce";
    chat.know(about);
    operator.clauses = about.guard.clauses;
    trouble();
  } catch (error) {
    trouble(error.status === 401 ? `${error.message} There is a field for it under Settings.` : `The gateway does not answer: ${error.message}`);
    return;
  }
  await chat.listModels();
}

function show() {
  const watching = location.hash === "#operator";
  byId("operator-view").hidden = !watching;
  byId("chat-view").hidden = watching;
  document.querySelector(".skip").hidden = watching;
  for (const [view, open] of [["operator", watching], ["chat", !watching]]) {
    if (open) byId(`to-${view}`).setAttribute("aria-current", "page");
    else byId(`to-${view}`).removeAttribute("aria-current");
  }
  document.title = watching ? "Operator · Charter playground" : "Charter playground";
  if (watching) operator.start();
  else operator.stop();
}

byId("key").addEventListener("change", () => {
  useKey(byId("key").value);
  meet();
});
addEventListener("hashchange", show);
show();
await meet();
document.documentElement.dataset.ready = "yes";
