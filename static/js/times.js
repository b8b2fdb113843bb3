// Keeps the words of every <time> true, in the server's own wording and by its clock.
const EVERY = 30_000; // ms
const MINUTE = 60, HOUR = 60 * MINUTE, DAY = 24 * HOUR, MONTH = 31 * DAY; // s
const UNITS = [[DAY, "a day", "days"], [HOUR, "an hour", "hours"], [MINUTE, "a minute", "minutes"]];
const ahead = Date.now() - Date.parse(document.documentElement.dataset.now); // ms that the browser's clock is

function words(seconds) {
  const [size, one, many] = UNITS.find(([size]) => seconds >= size) ?? [], count = Math.floor(seconds / size);
  return !size ? "just now" : `${count === 1 ? one : `${count} ${many}`} ago`;
}

function refresh() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const seconds = (Date.now() - ahead - Date.parse(time.dateTime)) / 1000;
    if (seconds < MONTH && time.textContent !== words(seconds)) time.textContent = words(seconds);
  }
}

setInterval(refresh, EVERY);
