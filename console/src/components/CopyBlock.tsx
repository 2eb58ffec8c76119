import { announce } from "./Announcer";
import { Button } from "./Button";

/** Code, and a button that copies it. */
export function CopyBlock({ label, code }: { label: string; code: string }) {
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(code);
      announce("Copied.");
    } catch {
      // Browsers offer the clipboard on localhost and over HTTPS alone.
      announce("The browser does not let this page copy. Select the text instead.");
    }
  };
  return (
    <div class="copy">
      <Button onClick={copy}>Copy</Button>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a box that scrolls must be reachable by keyboard */}
      <section tabIndex={0} aria-label={label}>
        <pre>
          <code>{code}</code>
        </pre>
      </section>
    </div>
  );
}
