"use strict";
// The viewer: without it each chart's link opens its PNG file.
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
  // A chart squeezed into a phone's width can't be read: there it begins at full size, to be moved about.
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
    if (event.metaKey || event.ctrlKey || event.shiftKey) return; // the PNG file, in a tab of its own
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
