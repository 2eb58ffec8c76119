import { afterEach, expect, test } from "vitest";
import { ask, connect, form, serviceUrl } from "./client";
import { ApiError } from "./errors";
import { currentSession, may, setSession } from "./session";

const requests: Request[] = [];
let answer: () => Response;
const api = connect("http://service/below", async (request) => {
  requests.push(request);
  return answer();
});

afterEach(() => {
  requests.length = 0;
  setSession(null);
});

const json =
  (body: unknown, init: ResponseInit = {}) =>
  () =>
    Response.json(body, init);

test("an answer is its body, and the address is below the page's folder", async () => {
  answer = json({ status: "ok" });
  expect(await ask(api.GET("/health"))).toEqual({ status: "ok" });
  expect(requests[0]?.url).toBe("http://service/below/health");
  expect(serviceUrl("https://host/clip/?x#/jobs")).toBe("https://host/clip");
  expect(serviceUrl("http://127.0.0.1:8000/")).toBe("http://127.0.0.1:8000");
});

test("an error has what the service says, and the request's id", async () => {
  answer = json(
    {
      error: { type: "x", code: "too_many_texts", message: "Send fewer texts.", param: "texts", index: null },
    },
    { status: 422, headers: { "X-Request-Id": "abc" } },
  );
  const error = await ask(api.GET("/health")).catch((failure: unknown) => failure);
  expect(error).toBeInstanceOf(ApiError);
  expect(error).toMatchObject({
    message: "Send fewer texts.",
    status: 422,
    code: "too_many_texts",
    requestId: "abc",
    param: "texts",
  });
  expect((error as ApiError).problems).toEqual([error]);
});

test("an error that names several fields has all of them", async () => {
  const places = [
    { message: "Field required.", param: "training_data" },
    { message: "The name is not allowed.", param: "evaluate", index: 1 },
  ];
  answer = json(
    { error: { type: "x", code: "invalid_request", ...places[0], errors: places } },
    { status: 422 },
  );
  const error = await ask(api.GET("/health")).catch((failure: unknown) => failure);
  expect((error as ApiError).param).toBe("training_data");
  expect((error as ApiError).problems).toEqual([
    { message: "Field required.", param: "training_data" },
    { message: "The name is not allowed.", param: "evaluate" },
  ]);
});

test("an error of a proxy, which is no JSON, is one too", async () => {
  answer = () => new Response("<h1>Bad gateway</h1>", { status: 502 });
  await expect(ask(api.GET("/health"))).rejects.toMatchObject({ status: 502, code: "unknown" });
});

test("a service that does not answer is unreachable", async () => {
  answer = () => {
    throw new TypeError("fetch failed");
  };
  await expect(ask(api.GET("/health"))).rejects.toMatchObject({ status: 0, code: "unreachable" });
});

test("changes carry the session's token, and reading does not", async () => {
  answer = json({ signed_in: true, needs_key: true });
  setSession({ signed_in: true, needs_key: true, csrf_token: "token" });
  await ask(api.GET("/health"));
  await ask(api.POST("/session", { body: { key: "k" } }));
  expect(requests.map((request) => request.headers.get("X-CSRF-Token"))).toEqual([null, "token"]);
});

test("a session that has ended asks to sign in again, but a wrong key does not end one", async () => {
  const error = { error: { type: "x", code: "unauthorized", message: "Sign in." } };
  answer = json(error, { status: 401 });
  await expect(ask(api.POST("/session", { body: { key: "wrong" } }))).rejects.toMatchObject({ status: 401 });
  expect(currentSession()).toBeNull();
  await expect(ask(api.GET("/jobs"))).rejects.toMatchObject({ status: 401 });
  expect(currentSession()).toEqual({ signed_in: false, needs_key: true });
});

test("without keys everything is allowed, and with one what its scopes allow", () => {
  setSession({ signed_in: false, needs_key: false });
  expect(may("admin")).toBe(true);
  setSession({ signed_in: true, needs_key: true, key: { name: "a", scopes: ["infer"] } });
  expect([may("infer"), may("train", "admin")]).toEqual([true, false]);
});

test("a form repeats the field of a list, and leaves out what is missing", () => {
  const body = form({ texts: ["a", "b"], top_k: 3, model: undefined });
  expect([...body]).toEqual([
    ["texts", "a"],
    ["texts", "b"],
    ["top_k", "3"],
  ]);
});
