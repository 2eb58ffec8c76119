import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { follow } from "./events";

/** What the browser has: here the test says when events arrive, and when the browser gives up. */
class Source extends EventTarget {
  static readonly CLOSED = 2;
  static opened: Source[] = [];
  readyState = 1;
  onopen: (() => void) | null = null;
  onerror: (() => void) | null = null;

  constructor(readonly url: string) {
    super();
    Source.opened.push(this);
  }

  send(type: string, data: unknown, lastEventId = "") {
    this.dispatchEvent(new MessageEvent(type, { data: JSON.stringify(data), lastEventId }));
  }

  lose(readyState: number) {
    this.readyState = readyState;
    this.onerror?.();
  }

  close() {
    this.readyState = Source.CLOSED;
  }
}

beforeEach(() => {
  Source.opened = [];
  vi.stubGlobal("EventSource", Source);
  vi.useFakeTimers();
});
afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

test("a stream that the service refused goes on after the last event", () => {
  const events: unknown[] = [];
  const stop = follow("jobs/job_1/events", ["status", "progress"], {
    onEvent: (type, data) => events.push([type, data]),
  });
  Source.opened[0]?.send("status", { to: "running" }, "7");
  Source.opened[0]?.send("progress", { share: 0.5 });
  Source.opened[0]?.lose(Source.CLOSED);
  vi.runAllTimers();

  expect(events).toEqual([
    ["status", { to: "running" }],
    ["progress", { share: 0.5 }],
  ]);
  expect(Source.opened.map(({ url }) => url)).toEqual(["jobs/job_1/events", "jobs/job_1/events?after=7"]);
  stop();
});

test("a lost connection is left to the browser, and the page hears of it", () => {
  const open: boolean[] = [];
  const stop = follow("events", [], { onEvent: () => {}, onConnection: (is) => open.push(is) });
  Source.opened[0]?.onopen?.();
  Source.opened[0]?.lose(0);
  vi.runAllTimers();

  expect(open).toEqual([true, false]);
  expect(Source.opened).toHaveLength(1);
  stop();
});

test("a stream that was stopped stays closed", () => {
  const stop = follow("events", [], { onEvent: () => {} });
  Source.opened[0]?.lose(Source.CLOSED);
  stop();
  vi.runAllTimers();

  expect(Source.opened).toHaveLength(1);
});
