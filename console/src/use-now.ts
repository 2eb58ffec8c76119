import { useEffect, useState } from "preact/hooks";

/** The time in seconds, which goes on while the page is open: for what is "3 min ago" or takes "2 min" more. */
export function useNow(everyS = 10): number {
  const [now, setNow] = useState(() => Date.now() / 1000);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now() / 1000), everyS * 1000);
    return () => clearInterval(timer);
  }, [everyS]);
  return now;
}
