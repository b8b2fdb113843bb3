// What this browser remembers, and the ids it makes. Storage may be full or refused: then nothing is remembered.

export function read(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null;
  }
}

export function write(key, value) {
  try {
    if (value == null) localStorage.removeItem(key);
    else localStorage.setItem(key, JSON.stringify(value));
  } catch {}
}

export function keys(prefix) {
  try {
    return Object.keys(localStorage).filter((key) => key.startsWith(prefix));
  } catch {
    return [];
  }
}

export const forget = (prefix) => keys(prefix).forEach((key) => write(key, null));

// The name of this tab, which a reload and a step back keep.
export function tabName(anew) {
  try {
    return (!anew && sessionStorage.chattable) || (sessionStorage.chattable = uuid());
  } catch {
    return uuid();
  }
}

// The address of a blob ends in a new UUID, by its standard; crypto.randomUUID does not exist on plain http.
export const uuid = () => URL.createObjectURL(new Blob()).slice(-36);
