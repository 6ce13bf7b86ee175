/** The element of an id. */
export const at = (id) => document.getElementById(id);

/** Text that stays the same is left alone: setting it would lay the page out again. */
export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
