/** Server-Sent Events that go on after the last one that arrived, whatever ended the connection. */

export interface Follower {
  /** `data` is parsed JSON. */
  onEvent(type: string, data: unknown): void;
  /** Whether the connection stands. A page can say that it shows something old while it does not. */
  onConnection?(open: boolean): void;
}

const PAUSE_MS = 3000;

/**
 * Follow a stream of events of these types; call the result to stop.
 *
 * The browser reconnects by itself after a lost connection, with the last event's number. It gives up when the service
 * refuses, as while it restarts: then a new connection asks for what comes `after` that number.
 */
export function follow(path: string, types: readonly string[], follower: Follower): () => void {
  let source: EventSource;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let last = "";

  const open = () => {
    source = new EventSource(last ? `${path}?after=${last}` : path);
    source.onopen = () => follower.onConnection?.(true);
    source.onerror = () => {
      follower.onConnection?.(false);
      if (source.readyState === EventSource.CLOSED) timer = setTimeout(open, PAUSE_MS);
    };
    for (const type of types) {
      source.addEventListener(type, (event: MessageEvent<string>) => {
        last = event.lastEventId || last;
        follower.onEvent(type, JSON.parse(event.data));
      });
    }
  };
  open();
  return () => {
    clearTimeout(timer);
    source.close();
  };
}
