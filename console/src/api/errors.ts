/** The one error of the console: what the service answered, or that it did not answer. */

export class ApiError extends Error {
  override readonly name = "ApiError";

  constructor(
    message: string,
    /** The HTTP status, or 0 if there was no answer. */
    readonly status: number,
    /** The service's code, on which programs can rely. */
    readonly code: string,
    readonly requestId: string | null = null,
    /** The field of the request that is wrong. */
    readonly param: string | null = null,
    /** The position of the wrong item, if the field is a list. */
    readonly index: number | null = null,
  ) {
    super(message);
  }

  static unreachable(): ApiError {
    return new ApiError("The service does not answer. Check that it runs, then try again.", 0, "unreachable");
  }

  static async of(response: Response): Promise<ApiError> {
    const requestId = response.headers.get("X-Request-Id");
    // A proxy's own error need not be JSON.
    const body: unknown = await response.json().catch(() => null);
    const error = isErrorBody(body) ? body.error : null;
    return new ApiError(
      error?.message ?? `The answer has the status ${response.status}, and does not say why.`,
      response.status,
      error?.code ?? "unknown",
      requestId,
      error?.param,
      error?.index,
    );
  }
}

interface ErrorBody {
  error: { message: string; code: string; param?: string | null; index?: number | null };
}

function isErrorBody(body: unknown): body is ErrorBody {
  const error = (body as Partial<ErrorBody> | null)?.error;
  return typeof error?.message === "string" && typeof error.code === "string";
}
