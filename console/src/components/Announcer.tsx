import { useEffect, useState } from "preact/hooks";

const SHOWN_MS = 5000;
let show: (message: string) => void = () => {};

/** Say that something has happened: shown for a few seconds, and read out. */
export function announce(message: string): void {
  show(message);
}

/** Where announcements appear. It stands in the page once. */
export function Announcer() {
  const [message, setMessage] = useState("");
  useEffect(() => {
    show = setMessage;
  }, []);
  useEffect(() => {
    if (!message) return;
    const timer = setTimeout(() => setMessage(""), SHOWN_MS);
    return () => clearTimeout(timer);
  }, [message]);
  return (
    <div class="announcer" aria-live="polite">
      {message && <p class="toast">{message}</p>}
    </div>
  );
}
