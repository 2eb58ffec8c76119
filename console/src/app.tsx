import { useEffect, useRef, useState } from "preact/hooks";
import { api, ask } from "./api/client";
import type { ApiError } from "./api/errors";
import { currentSession, may, onSession, type Session, setSession } from "./api/session";
import { Announcer } from "./components/Announcer";
import { EmptyState } from "./components/EmptyState";
import { ErrorNote } from "./components/ErrorNote";
import { Skeleton } from "./components/Skeleton";
import { Frame } from "./frame";
import { NotAllowed } from "./not-allowed";
import { PAGES } from "./pages";
import { useRoute } from "./router";
import { SignIn } from "./sign-in";

export function App() {
  const route = useRoute();
  const session = useSession();
  const page = PAGES.find(({ path }) => path === (route.page || PAGES[0]?.path));
  const title = page?.title ?? "Not found";
  const main = useRef<HTMLElement>(null);

  // A new page is read out from its beginning, as it would be if the browser had loaded it.
  const place = [route.page, ...route.rest].join("/");
  const [shown, setShown] = useState(place);
  useEffect(() => {
    document.title = `${title} · SDS-CLIP`;
    if (place !== shown) {
      setShown(place);
      main.current?.focus();
      scrollTo(0, 0);
    }
  }, [place, shown, title]);

  return (
    <>
      <a
        class="skip"
        href={location.hash || "#/"}
        onClick={(event) => {
          event.preventDefault();
          main.current?.focus();
        }}
      >
        Skip to the content
      </a>
      <Frame current={page?.path} session={session.data} />
      <main ref={main} tabIndex={-1}>
        {session.error ? (
          <ErrorNote error={session.error} onRetry={session.reload} />
        ) : !session.data ? (
          <Skeleton lines={6} />
        ) : session.data.needs_key && !session.data.signed_in ? (
          <SignIn />
        ) : !page ? (
          <EmptyState title="There is no such page.">
            <a href="#/try">Go to the first page.</a>
          </EmptyState>
        ) : page.scope && !may(page.scope) ? (
          <NotAllowed title={page.title} scope={page.scope} />
        ) : (
          <page.Page key={page.path} rest={route.rest} query={route.query} />
        )}
      </main>
      <Announcer />
    </>
  );
}

function useSession() {
  const [data, setData] = useState<Session | null>(currentSession);
  const [error, setError] = useState<ApiError>();
  useEffect(() => onSession(setData), []);
  const reload = () => {
    setError(undefined);
    ask(api.GET("/session")).then(setSession, (failure: ApiError) => setError(failure));
  };
  useEffect(reload, []);
  return { data, error, reload };
}
