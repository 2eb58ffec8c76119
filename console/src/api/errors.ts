/** The one error of the console: what the service answered, or that it did not answer. */

/** What is wrong with one field of a request. */
export interface Problem {
  message: string;
  /** The field. */
  param: string | null;
}

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
    /** Every wrong field that the service names, this error's among them. It is empty if there is only that one. */
    readonly errors: readonly Problem[] = [],
  ) {
    super(message);
  }

  get problems(): readonly Problem[] {
    return this.errors.length ? this.errors : [this];
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
      error?.errors?.map(({ message, param = null }) => ({ message, param })),
    );
  }
}

interface ErrorBody {
  error: {
    message: string;
    code: string;
    param?: string | null;
    index?: number | null;
    errors?: { message: string; param?: string | null }[];
  };
}

function isErrorBody(body: unknown): body is ErrorBody {
  const error = (body as Partial<ErrorBody> | null)?.error;
  return typeof error?.message === "string" && typeof error.code === "string";
}
