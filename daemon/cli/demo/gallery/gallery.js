"use strict";
// The viewer. Without this script, the link of each chart opens its PNG file.
const links = [...document.querySelectorAll("a[data-title]")];
const viewer = document.getElementById("viewer");
const part = (name) => document.getElementById(`viewer-${name}`);
let current = 0;

function show(index) {
  current = (index + links.length) % links.length;
  const link = links[current];
  const picture = link.querySelector("img");
  part("image").src = picture.src;
  part("image").alt = picture.alt;
  part("title").textContent = link.dataset.title;
  part("kind").textContent = link.dataset.kind;
  part("place").textContent = `${current + 1} of ${links.length}`;
  part("file").href = link.href;
}

function fit(wanted) {
  viewer.classList.toggle("fit", wanted);
  part("size").setAttribute("aria-pressed", String(wanted));
}

function open(index) {
  show(index);
  // On the width of a phone a fitted chart is too small to read: show it at full size, to be scrolled.
  fit(window.matchMedia("(min-width: 801px)").matches);
  viewer.showModal();
  viewer.querySelector(".picture").focus();
}

const moves = {
  ArrowLeft: () => current - 1,
  ArrowRight: () => current + 1,
  Home: () => 0,
  End: () => links.length - 1,
};

links.forEach((link, index) => {
  link.addEventListener("click", (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return; // open the PNG file in another tab
    event.preventDefault();
    open(index);
  });
});
part("previous").addEventListener("click", () => show(current - 1));
part("next").addEventListener("click", () => show(current + 1));
part("size").addEventListener("click", () => fit(!viewer.classList.contains("fit")));
part("close").addEventListener("click", () => viewer.close());
viewer.addEventListener("keydown", (event) => {
  const move = moves[event.key];
  if (!move || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  show(move());
});
viewer.addEventListener("close", () => links[current].focus());
