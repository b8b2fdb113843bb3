// The seconds that a model thinks are counted here, on from what the server has said.
const began = new WeakMap(); // of a <time>, ms
const seconds = (text) => text.match(/\d+/g).reduce((sum, part) => 60 * sum + +part, 0);
const words = (s) => (s < 60 ? `${s} s` : `${Math.floor(s / 60)} min ${s % 60} s`);

setInterval(() => {
  for (const time of document.querySelectorAll(".message[data-thinking] summary time")) {
    if (!began.has(time)) began.set(time, Date.now() - 1000 * seconds(time.textContent));
    time.textContent = words(Math.floor((Date.now() - began.get(time)) / 1000));
  }
}, 1_000);
