import { api, ask, type Schemas } from "../../api/client";
import { isSameVersion } from "../../api/models";
import { useAction, useLoaded } from "../../api/use";
import { Button } from "../../components/Button";
import { EmptyState } from "../../components/EmptyState";
import { ErrorNote } from "../../components/ErrorNote";
import { Field } from "../../components/Field";
import { Form } from "../../components/Form";
import { SelectField } from "../../components/SelectField";
import { Tabs } from "../../components/Tabs";
import { useKept } from "../../kept";
import { Examples } from "./Examples";
import { EXAMPLES, type Example, fileOf, LABELS } from "./examples";
import { Pictures, type Shown, shown } from "./Pictures";
import { Results } from "./Results";
import { type Answer, type Request, send } from "./request";
import { rivalsOf, SwapGame } from "./SwapGame";
import { cut, lines, repeated } from "./texts";
import { VersionField } from "./Versions";
import "./try.css";

type Task = "match" | "classify" | "swap";

const TASKS: { name: Task; title: string }[] = [
  { name: "match", title: "Match texts" },
  { name: "classify", title: "Classify" },
  { name: "swap", title: "Swap words" },
];

const TEMPLATES = [
  ["simple", "simple: 7 prompts"],
  ["openai", "openai: 80 prompts"],
  ["own", "my own"],
] as const;

interface Inputs {
  task: Task;
  pictures: readonly Shown[];
  texts: string;
  labels: string;
  templates: (typeof TEMPLATES)[number][0];
  ownTemplates: string;
  caption: string;
  own: readonly string[];
  left: readonly string[];
  model: string;
  other: string;
}

const DEMO_KNOWS =
  "The demo model knows simple pictures alone: one or two shapes, such as a circle, a star or a bolt, in 12 colours. " +
  "It tells which colour belongs to which shape, but not who is where, which make demo teaches it. " +
  "What it says of a photo means nothing.";

const SAME = "Both are the same version, so there is nothing to compare.";

const EMPTY: Inputs = {
  task: "match",
  pictures: [],
  texts: "",
  labels: "",
  templates: "simple",
  ownTemplates: "a photo of a {}",
  caption: "",
  own: [],
  left: [],
  model: "",
  other: "",
};

export function TryPage() {
  const [inputs, setInputs] = useKept<Inputs>("try inputs", EMPTY);
  const [answer, setAnswer] = useKept<Answer | undefined>("try answer", undefined);
  const models = useLoaded(() => ask(api.GET("/models", { params: { query: { limit: 100 } } })), []);
  const sending = useAction(async (asked: Inputs) => setAnswer(await send(requestOf(asked))));
  const set = (changes: Partial<Inputs>) => setInputs((before) => ({ ...before, ...changes }));
  const missing = whatIsMissing(inputs);
  const notes = [
    inputs.task !== "swap" && repeated(inputs.task === "match" ? inputs.texts : inputs.labels),
    cut(textsOf(inputs), contextOf(models.data?.models, inputs.model)),
  ].filter((note) => typeof note === "string");
  const submit = () => missing || sending.running || void sending.run(inputs);
  const trying = useAction(async (example: Example) => {
    const { caption } = example;
    const texts = [caption, ...rivalsOf(caption, [], [])].join("\n");
    const pictures = shown([await fileOf(example)], true);
    const next = { ...inputs, caption, own: [], left: [], texts, labels: LABELS, pictures };
    setInputs(next);
    await sending.run(next);
  });
  return (
    <div class="page try">
      <h1>Try</h1>
      <Form
        class="stack try-form"
        onSubmit={submit}
        onKeyDown={(event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit();
        }}
      >
        <Pictures pictures={inputs.pictures} onChange={(pictures) => set({ pictures })} />
        {inputs.pictures.every(isExample) && <Examples busy={trying.running} onPick={trying.run} />}
        {models.data?.models.some(({ reference }) => reference === "demo") && (
          <p class="muted small">{DEMO_KNOWS}</p>
        )}
        <Tabs label="What to do" tabs={TASKS} current={inputs.task} onChange={(task) => set({ task })}>
          {inputs.task === "match" && (
            <LinesField label="Texts" value={inputs.texts} onChange={(texts) => set({ texts })} />
          )}
          {inputs.task === "classify" && <ClassifyFields inputs={inputs} set={set} />}
          {inputs.task === "swap" && (
            <SwapGame
              caption={inputs.caption}
              onCaption={(caption) => set({ caption })}
              own={inputs.own}
              left={inputs.left}
              onRivals={(own, left) => set({ own, left })}
            />
          )}
        </Tabs>
        {notes.map((note) => (
          <p key={note} class="muted small">
            {note}
          </p>
        ))}
        <div class="try-versions">
          <VersionField
            label="Version"
            none="Default model"
            models={models.data}
            value={inputs.model}
            onChange={(model) => set({ model })}
          />
          <VersionField
            label="Compare with"
            none="Nothing"
            {...(inputs.other && isSameVersion(inputs.model, inputs.other, models.data) && { help: SAME })}
            models={models.data}
            value={inputs.other}
            onChange={(other) => set({ other })}
          />
        </div>
        <ErrorNote error={models.error} onRetry={models.reload} />
        <div class="row">
          <Button type="submit" look="primary" busy={sending.running} disabled={missing !== undefined}>
            {inputs.task === "classify" ? "Classify" : "Match"}
          </Button>
          <span class="muted small">{missing ?? "Ctrl+Enter does the same."}</span>
        </div>
        <ErrorNote error={sending.error ?? trying.error} />
      </Form>
      {answer ? (
        <Results answer={answer} current={requestOf(inputs)} missing={missing} />
      ) : (
        <EmptyState title="Which text fits a picture best?">
          <p>Add a picture and some texts to see which text the model finds most probable.</p>
        </EmptyState>
      )}
    </div>
  );
}

function ClassifyFields({ inputs, set }: { inputs: Inputs; set: (changes: Partial<Inputs>) => void }) {
  return (
    <div class="stack">
      <LinesField label="Labels" value={inputs.labels} onChange={(labels) => set({ labels })} />
      <SelectField
        label="Templates"
        help="Each label is put into every prompt, and the features of its prompts are averaged."
        value={inputs.templates}
        options={TEMPLATES}
        onChange={(templates) => set({ templates })}
      />
      {inputs.templates === "own" && (
        <LinesField
          label="My templates"
          help="One per line, with {} in place of the label."
          value={inputs.ownTemplates}
          onChange={(ownTemplates) => set({ ownTemplates })}
        />
      )}
    </div>
  );
}

interface LinesProps {
  label: string;
  help?: string;
  value: string;
  onChange: (value: string) => void;
}

function LinesField({ label, help = "One per line.", value, onChange }: LinesProps) {
  return (
    <Field label={label} help={help}>
      {(control) => (
        <textarea
          {...control}
          rows={5}
          value={value}
          onInput={({ currentTarget }) => onChange(currentTarget.value)}
        />
      )}
    </Field>
  );
}

type Served = Pick<Schemas["ServedModel"], "name" | "default" | "context_length">;

/** How many tokens the chosen model reads. A version that is not in service is taken to be like the default one. */
function contextOf(models: readonly Served[] | undefined, name: string): number | undefined {
  const found = models?.find((model) => model.name === name) ?? models?.find((model) => model.default);
  return found?.context_length;
}

const isExample = ({ file }: Shown) => EXAMPLES.some(({ name }) => name === file.name);

function textsOf(inputs: Inputs): string[] {
  if (inputs.task === "match") return lines(inputs.texts);
  if (inputs.task === "classify") return lines(inputs.labels);
  return [inputs.caption, ...rivalsOf(inputs.caption, inputs.own, inputs.left)].filter((text) => text.trim());
}

function requestOf(inputs: Inputs): Request {
  return {
    kind: inputs.task === "classify" ? "classify" : "match",
    pictures: inputs.pictures,
    texts: textsOf(inputs),
    caption: inputs.task === "swap" ? inputs.caption : undefined,
    templates: inputs.templates === "own" ? lines(inputs.ownTemplates) : [inputs.templates],
    models: inputs.other ? [inputs.model, inputs.other] : [inputs.model],
  };
}

function whatIsMissing(inputs: Inputs): string | undefined {
  if (!inputs.pictures.length) return "Add a picture first.";
  if (textsOf(inputs).length) return undefined;
  return { match: "Type a text first.", classify: "Type a label first.", swap: "Type a caption first." }[
    inputs.task
  ];
}
