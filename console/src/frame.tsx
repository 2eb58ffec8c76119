import { useEffect, useState } from "preact/hooks";
import { api, ask } from "./api/client";
import { type Session, setSession } from "./api/session";
import { useAction } from "./api/use";
import { announce } from "./components/Announcer";
import { Button } from "./components/Button";
import { ErrorNote } from "./components/ErrorNote";
import { forget } from "./kept";
import { PAGES } from "./pages";
import { address } from "./router";
import { applyTheme, chosenTheme, type Theme } from "./theme";

/** What stands above every page: the way to the others, light or dark, and who is signed in. */
export function Frame({ current, session }: { current: string | undefined; session: Session | null }) {
  const [open, setOpen] = useState(false);
  // biome-ignore lint/correctness/useExhaustiveDependencies: a menu closes when it has led somewhere
  useEffect(() => setOpen(false), [current]);
  return (
    <header class="frame-top">
      <div class="frame-bar">
        <a class="frame-brand" href="#/">
          SDS-CLIP
        </a>
        <nav aria-label="Pages" id="pages" data-open={String(open)}>
          <ul>
            {PAGES.map(({ path, title }) => (
              <li key={path}>
                <a
                  href={address([path])}
                  aria-current={path === current ? "page" : undefined}
                  data-label={title}
                  onClick={() => setOpen(false)}
                >
                  {title}
                </a>
              </li>
            ))}
          </ul>
        </nav>
        <span class="frame-menu">
          <Button aria-expanded={open} aria-controls="pages" onClick={() => setOpen(!open)}>
            Menu
          </Button>
        </span>
        <ThemeSwitch />
        {session?.key && (
          <>
            <SignOut label="Sign out" title={`Signed in with the key ${session.key.name}`} />
            <SignOut
              label="Sign out everywhere"
              title={`End all sessions of the key ${session.key.name}, in every browser`}
              everywhere
            />
          </>
        )}
      </div>
    </header>
  );
}

const NEXT: Record<Theme, Theme> = { system: "light", light: "dark", dark: "system" };
const LOOKS: Record<Theme, string> = { system: "auto", light: "light", dark: "dark" };

function ThemeSwitch() {
  const [theme, setTheme] = useState(chosenTheme);
  const change = () => {
    applyTheme(NEXT[theme]);
    setTheme(NEXT[theme]);
  };
  return (
    <Button
      look="plain"
      title={`Change to ${LOOKS[NEXT[theme]]}. Auto follows your system.`}
      onClick={change}
    >
      <span class="frame-theme">Colours: {LOOKS[theme]}</span>
    </Button>
  );
}

function SignOut({
  label,
  title,
  everywhere = false,
}: {
  label: string;
  title: string;
  everywhere?: boolean;
}) {
  const out = useAction(async () => {
    const session = await ask(api.DELETE("/session", { params: { query: { everywhere } } }));
    forget();
    setSession(session);
    announce(everywhere ? "All sessions of the key have ended." : "You are signed out.");
  });
  return (
    <>
      <Button look="plain" title={title} busy={out.running} onClick={() => out.run()}>
        {label}
      </Button>
      <ErrorNote error={out.error} />
    </>
  );
}
