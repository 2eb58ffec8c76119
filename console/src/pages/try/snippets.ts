/** The request of the page, to be sent from elsewhere. */

export interface Asked {
  route: "/match" | "/classify";
  url: string;
  files: string[];
  /** Texts to match, or labels. */
  texts: string[];
  templates?: string[] | undefined;
  topK?: number | undefined;
  /** Names of models; "" is the default one. */
  models: string[];
  needsKey: boolean;
}

export function curl(asked: Asked): string {
  const { route, templates = [], topK } = asked;
  const field = (name: string, value: string | number) => `--form-string ${quoted(`${name}=${value}`)}`;
  return asked.models
    .map((model) =>
      [
        `curl ${quoted(asked.url + route)}`,
        ...(asked.needsKey ? ['-H "Authorization: Bearer $SDS_CLIP_API_KEY"'] : []),
        ...asked.files.map((name) => `-F ${quoted(`images=@"${name.replace(/[\\"]/g, "\\$&")}"`)}`),
        ...asked.texts.map((text) => field(route === "/match" ? "texts" : "labels", text)),
        ...templates.map((template) => field("templates", template)),
        ...(topK === undefined ? [] : [field("top_k", topK)]),
        ...(model ? [field("model", model)] : []),
      ].join(" \\\n  "),
    )
    .join("\n\n");
}

export function python(asked: Asked): string {
  const { route, templates, topK } = asked;
  const list = (values: string[]) => `[${values.map((value) => JSON.stringify(value)).join(", ")}]`;
  const calls = asked.models.map((model) => {
    const options = [
      ...(templates?.length
        ? [`templates=${isNamed(templates) ? JSON.stringify(templates[0]) : list(templates)}`]
        : []),
      ...(topK === undefined ? [] : [`top_k=${topK}`]),
      ...(model ? [`model=${JSON.stringify(model)}`] : []),
    ];
    return `print(client.${route.slice(1)}(${["images", "texts", ...options].join(", ")}))`;
  });
  return [
    "from sds_clip import Client",
    "",
    ...(asked.needsKey ? ["# The client reads the key from SDS_CLIP_API_KEY."] : []),
    `client = Client(${JSON.stringify(asked.url)})`,
    `images = ${list(asked.files)}`,
    `texts = ${list(asked.texts)}`,
    ...calls,
  ].join("\n");
}

const isNamed = (templates: string[]) => templates.length === 1 && !templates[0]?.includes("{}");

/** A word of a POSIX shell. */
const quoted = (word: string) => `'${word.replaceAll("'", `'\\''`)}'`;
