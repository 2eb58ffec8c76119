/** The service's OpenAPI description, where a page reads it as it runs. */

import { serviceUrl } from "./client";
import { ApiError } from "./errors";

export interface Schema {
  type?: string;
  enum?: unknown[];
  const?: unknown;
  anyOf?: Schema[];
  default?: unknown;
  description?: string;
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
  pattern?: string;
  properties?: Record<string, Schema>;
  required?: string[];
  $ref?: string;
  "x-section"?: string;
}

export type Schemas = Record<string, Schema>;

/** What `/openapi.json` says of the bodies of requests and answers. */
export async function fetchSchemas(): Promise<Schemas> {
  const answer = await fetch(`${serviceUrl()}/openapi.json`).catch(() => {
    throw ApiError.unreachable();
  });
  if (!answer.ok) throw await ApiError.of(answer);
  const description = (await answer.json()) as { components: { schemas: Schemas } };
  return description.components.schemas;
}
