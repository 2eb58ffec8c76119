/** Sends a form with files, and tells how far it is. Nothing but XMLHttpRequest tells that in all browsers. */

import { refusal, tokenHeaders } from "./client";
import { ApiError } from "./errors";

interface Options {
  onProgress: (sent: number, total: number) => void;
  /** Ends the upload. It then rejects with an AbortError. */
  signal: AbortSignal;
}

/** The body of the answer. A failed upload rejects with an ApiError. */
export function upload<T>(url: string, form: FormData, { onProgress, signal }: Options): Promise<T> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", url);
    for (const [name, value] of Object.entries(tokenHeaders())) request.setRequestHeader(name, value);
    request.upload.onprogress = ({ loaded, total }) => onProgress(loaded, total);
    request.onload = () => {
      const answer = answerOf(request);
      if (answer.ok) answer.json().then(resolve, reject);
      else refusal(answer).then(reject);
    };
    request.onerror = () => reject(lost());
    request.onabort = () => reject(new DOMException("The upload was cancelled.", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

function answerOf(request: XMLHttpRequest): Response {
  const id = request.getResponseHeader("X-Request-Id");
  return new Response(request.responseText, {
    status: request.status,
    headers: id === null ? {} : { "X-Request-Id": id },
  });
}

function lost(): ApiError {
  return new ApiError(
    "The connection ended during the upload, and the service has kept nothing of it. Check that the service runs, then send it again.",
    0,
    "unreachable",
  );
}
