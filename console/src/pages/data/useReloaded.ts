import { useEffect } from "preact/hooks";

const CHECKING_S = 1;

/** Load again every second while a check runs and the page is visible. */
export function useReloaded(isChecking: boolean, reload: () => void): void {
  useEffect(() => {
    if (!isChecking) return;
    const timer = setInterval(() => document.hidden || reload(), CHECKING_S * 1000);
    return () => clearInterval(timer);
  }, [isChecking, reload]);
}
