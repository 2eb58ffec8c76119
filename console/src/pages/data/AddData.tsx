import { api, ask } from "../../api/client";
import type { ApiError } from "../../api/errors";
import { useAction } from "../../api/use";
import { announce } from "../../components/Announcer";
import { Button } from "../../components/Button";
import { Described } from "../../components/Described";
import { ErrorNote } from "../../components/ErrorNote";
import { Field } from "../../components/Field";
import { FileDrop } from "../../components/FileDrop";
import { Form } from "../../components/Form";
import { Tabs } from "../../components/Tabs";
import { TextField } from "../../components/TextField";
import { useKept } from "../../kept";
import { address } from "../../router";
import { FormatField } from "./FormatField";
import { PAIRS } from "./formats";
import { proposedName } from "./names";
import { UploadPanel } from "./UploadPanel";
import { forget, start, useUploading } from "./uploading";

type Way = "file" | "shards" | "source";

const WAYS: { name: Way; title: string }[] = [
  { name: "file", title: "An archive" },
  { name: "shards", title: "WebDataset shards" },
  { name: "source", title: "Files on the server" },
];

interface Draft {
  way: Way;
  format: string;
  archive: readonly File[];
  shards: readonly File[];
  source: string;
  name: string;
  /** In percent, as it is typed. */
  bad: string;
}

const EMPTY: Draft = { way: "file", format: PAIRS, archive: [], shards: [], source: "", name: "", bad: "0" };
/** The fields that have their errors beside them. */
const SHOWN = ["file", "shards", "source", "name", "format", "max_bad_share"];

export function AddData() {
  const [draft, setDraft] = useKept<Draft>("data to add", EMPTY);
  const uploading = useUploading();
  const registering = useAction(async (asked: Draft) => {
    const { id, name } = await ask(api.POST("/datasets", { body: registration(asked) }));
    announce(`${name || "The data set"} is registered. Its check begins.`);
    setDraft(EMPTY);
    location.hash = address(["data", id]);
  });
  const error = draft.way === "source" ? registering.error : uploading?.error;
  const isUploading = uploading !== undefined && !uploading.error;
  const files = draft.way === "file" ? draft.archive : draft.shards;
  const missing = whatIsMissing(draft);
  const set = (changes: Partial<Draft>) => {
    forget();
    setDraft((before) => ({ ...before, ...changes }));
  };
  const submit = () => {
    if (missing || isUploading || registering.running) return;
    if (draft.way === "source") void registering.run(draft);
    else
      void start({ ...fields(draft), kind: draft.way, files }).then((arrived) => arrived && setDraft(EMPTY));
  };
  return (
    <div class="page data-add">
      <p>
        <a href="#/data">All data</a>
      </p>
      <h1>Add data</h1>
      {isUploading && (
        <>
          <UploadPanel />
          <p class="muted">The upload goes on while you look at other pages of the console in this tab.</p>
        </>
      )}
      <Form class="stack" hidden={isUploading} onSubmit={submit}>
        <FormatField
          value={draft.format}
          onChange={(format) => set({ format })}
          error={at(error, "format")}
        />
        <Tabs label="Where the data are" tabs={WAYS} current={draft.way} onChange={(way) => set({ way })}>
          <Source draft={draft} set={set} error={error} />
        </Tabs>
        <div class="data-grid">
          <TextField
            label="Name"
            help="Optional: at most 64 letters, digits, dots, hyphens and underscores, no spaces. Commands and scripts can use it in place of the id."
            error={at(error, "name")}
            value={draft.name}
            autocomplete="off"
            spellcheck={false}
            onChange={(name) => set({ name })}
          />
          <TextField
            label="Unusable samples allowed, in percent"
            help="Samples that cannot be used, such as broken images, are left out. If there are more than this, the data set is rejected."
            error={at(error, "max_bad_share")}
            type="number"
            min={0}
            max={100}
            step="any"
            value={draft.bad}
            onChange={(bad) => set({ bad })}
          />
        </div>
        {error && !SHOWN.includes(error.param ?? "") && <ErrorNote error={error} />}
        <div class="row">
          <Button type="submit" look="primary" busy={registering.running} disabled={missing !== undefined}>
            {draft.way === "source" ? "Register" : "Upload"}
          </Button>
          <span class="muted small">{missing}</span>
        </div>
      </Form>
    </div>
  );
}

interface SourceProps {
  draft: Draft;
  set: (changes: Partial<Draft>) => void;
  error: ApiError | undefined;
}

function Source({ draft, set, error }: SourceProps) {
  switch (draft.way) {
    case "file":
      return (
        <Field
          label="Archive"
          help={
            <Described text="A tar, tar.gz or zip file. If it holds a single folder, that folder is the data set. A folder itself cannot be picked: pack it first, or send it with `sds-clip datasets upload`." />
          }
          error={at(error, "file")}
        >
          {(control) => (
            <FileDrop
              control={control}
              verb="Pick an archive"
              accept=".tar,.tgz,.gz,.zip"
              files={draft.archive}
              onChange={(archive) => {
                const isOwn = draft.name && draft.name !== proposedName(draft.archive[0]);
                set({ archive, ...(!isOwn && { name: proposedName(archive[0]) }) });
              }}
            />
          )}
        </Field>
      );
    case "shards":
      return (
        <Field
          label="Shards"
          help={
            <Described text="Uncompressed tar files with `KEY.jpg` and `KEY.txt`, or `KEY.json` with a `caption`. Choose all of them at once." />
          }
          error={at(error, "shards") ?? at(error, "file")}
        >
          {(control) => (
            <FileDrop
              control={control}
              verb="Pick shards"
              accept=".tar"
              multiple
              files={draft.shards}
              onChange={(shards) => set({ shards })}
            />
          )}
        </Field>
      );
    case "source":
      return (
        <TextField
          label="Path on the server"
          help={
            <Described text="A folder, or shards such as `/data/coco/{00000..00099}.tar`, in a folder that the operator opened with `SDS_CLIP_DATASET_ROOTS`. The files stay where they are." />
          }
          error={at(error, "source")}
          value={draft.source}
          autocomplete="off"
          spellcheck={false}
          onChange={(source) => set({ source })}
        />
      );
  }
}

function at(error: ApiError | undefined, param: string): string | undefined {
  if (error?.param !== param) return undefined;
  return error.index === null || error.index === undefined
    ? error.message
    : `File ${error.index + 1}: ${error.message}`;
}

function whatIsMissing(draft: Draft): string | undefined {
  switch (draft.way) {
    case "file":
      return draft.archive.length ? undefined : "Pick an archive first.";
    case "shards":
      return draft.shards.length ? undefined : "Pick the shards first.";
    case "source":
      return draft.source.trim() ? undefined : "Type a path first.";
  }
}

function fields({ name, format, bad }: Draft) {
  return { name: name.trim(), format, max_bad_share: Number(bad) / 100 };
}

function registration(draft: Draft) {
  const { name, ...rest } = fields(draft);
  return { ...rest, name: name || null, source: draft.source.trim() };
}
