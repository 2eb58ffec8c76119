import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { currentSession, setSession } from "./session";
import { upload } from "./upload";

/** What the browser has: here the test says how far it is, and what comes back. */
class FakeRequest {
  static newest: FakeRequest;
  upload: { onprogress?: (event: { loaded: number; total: number }) => void } = {};
  onload?: () => void;
  onerror?: () => void;
  onabort?: () => void;
  status = 0;
  responseText = "";
  headers: Record<string, string> = {};
  sent: unknown;
  opened: string[] = [];

  constructor() {
    FakeRequest.newest = this;
  }
  open(...given: string[]) {
    this.opened = given;
  }
  setRequestHeader(name: string, value: string) {
    this.headers[name] = value;
  }
  getResponseHeader(name: string) {
    return name === "X-Request-Id" ? "abc" : null;
  }
  send(body: unknown) {
    this.sent = body;
  }
  abort() {
    this.onabort?.();
  }
  answer(status: number, body: string) {
    this.status = status;
    this.responseText = body;
    this.onload?.();
  }
}

beforeEach(() => {
  vi.stubGlobal("XMLHttpRequest", FakeRequest);
});
afterEach(() => {
  vi.unstubAllGlobals();
  setSession(null);
});

function begin() {
  const progress: [number, number][] = [];
  const control = new AbortController();
  const form = new FormData();
  const done = upload<unknown>("http://service/datasets", form, {
    onProgress: (sent, total) => progress.push([sent, total]),
    signal: control.signal,
  });
  return { progress, control, form, done, request: FakeRequest.newest };
}

test("an upload tells how far it is, and its answer is its body", async () => {
  setSession({ signed_in: true, needs_key: true, csrf_token: "token" });
  const { progress, form, done, request } = begin();
  request.upload.onprogress?.({ loaded: 5, total: 10 });
  request.answer(202, '{"id": "ds_1"}');

  expect(await done).toEqual({ id: "ds_1" });
  expect(progress).toEqual([[5, 10]]);
  expect(request.opened).toEqual(["POST", "http://service/datasets"]);
  expect(request.headers).toEqual({ "X-CSRF-Token": "token" });
  expect(request.sent).toBe(form);
});

test("a refusal has what the service says, and the field", async () => {
  const { done, request } = begin();
  request.answer(
    422,
    JSON.stringify({ error: { code: "archive_format", message: "Pack it again.", param: "file" } }),
  );
  await expect(done).rejects.toMatchObject({
    status: 422,
    code: "archive_format",
    message: "Pack it again.",
    param: "file",
    requestId: "abc",
  });
});

test("an upload whose session has ended asks to sign in again", async () => {
  const { done, request } = begin();
  request.answer(401, JSON.stringify({ error: { code: "unauthorized", message: "Sign in." } }));
  await expect(done).rejects.toMatchObject({ status: 401 });
  expect(currentSession()).toEqual({ signed_in: false, needs_key: true });
});

test("a lost connection is an error, and a cancelled upload another one", async () => {
  const first = begin();
  first.request.onerror?.();
  await expect(first.done).rejects.toMatchObject({ status: 0, code: "unreachable" });
  const second = begin();
  second.control.abort();
  await expect(second.done).rejects.toMatchObject({ name: "AbortError" });
});
