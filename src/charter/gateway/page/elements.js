// Elements made and filled. Text is only ever set as text.

export const byId = (id) => document.getElementById(id);

/** An element with attributes and children (strings become text). `class` and `hidden` are attributes as any other. */
export function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** Say something to those who listen rather than look. */
export function announce(text) {
  byId("status").textContent = text;
}

/** Show what went wrong, or nothing. */
export function trouble(text = "") {
  const place = byId("trouble");
  place.hidden = !text;
  place.textContent = text;
}
