/** Numbers, sizes and times as people read them. */

export const MISSING = "–";

export function percent(share: number | null | undefined, digits = 1): string {
  return share == null ? MISSING : `${(share * 100).toFixed(digits)} %`;
}

/** "32.1 to 40.2 %" */
export function shareInterval(low: number | null | undefined, high: number | null | undefined): string {
  return low == null || high == null ? MISSING : `${(100 * low).toFixed(1)} to ${percent(high)}`;
}

/** A difference between two shares in percentage points, with its sign unless it is 0. */
export function points(difference: number, digits = 1): string {
  const rounded = (difference * 100).toFixed(digits);
  return Number(rounded) === 0 ? (0).toFixed(digits) : signed(rounded);
}

export function score(value: number | null | undefined, digits = 4): string {
  return value == null ? MISSING : value.toFixed(digits).replace("-", "−");
}

/** A number of at most four significant digits, with thousands set apart. */
export function figure(value: number | null | undefined): string {
  return value == null ? MISSING : value.toLocaleString("en", { maximumSignificantDigits: 4 });
}

/** The same where there is little room, as at the axis of a chart: "8.90e−5". */
export function compact(value: number | null | undefined): string {
  if (!value || Math.abs(value) >= 1e-3) return figure(value).replace("-", "−");
  return value.toExponential(2).replaceAll("-", "−");
}

export function pValue(p: number): string {
  if (p < 0.0001) return "< 0.0001";
  return p >= 0.1 ? p.toFixed(2) : String(Number(p.toPrecision(2)));
}

export function count(value: number | null | undefined): string {
  return value == null ? MISSING : value.toLocaleString("en");
}

/** "1 picture", "3 pictures" */
export function counted(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

export function bytes(value: number | null | undefined): string {
  if (value == null) return MISSING;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(Math.floor(Math.log2(Math.max(value, 1)) / 10), units.length - 1);
  return `${(value / 2 ** (10 * power)).toFixed(power ? 1 : 0)} ${units[power]}`;
}

/** The two largest units of a number of seconds: "45 s", "3 min 20 s", "2 h 5 min", "3 d 4 h". */
export function duration(seconds: number | null | undefined): string {
  if (seconds == null) return MISSING;
  const s = Math.max(0, Math.round(seconds));
  const two = (value: number, unit: string, rest: number, smaller: string) =>
    rest ? `${value} ${unit} ${rest} ${smaller}` : `${value} ${unit}`;
  if (s < 60) return `${s} s`;
  if (s < 3600) return two(Math.floor(s / 60), "min", s % 60, "s");
  if (s < 86_400) return two(Math.floor(s / 3600), "h", Math.floor((s % 3600) / 60), "min");
  return two(Math.floor(s / 86_400), "d", Math.floor((s % 86_400) / 3600), "h");
}

/** How long ago a time was, or how far ahead it is. Both are in seconds since the Unix epoch. */
export function relative(at: number, now: number): string {
  const away = Math.abs(now - at);
  if (away < 5) return "now";
  const text = duration(away < 60 ? away : Math.floor(away / 60) * 60);
  return at < now ? `${text} ago` : `in ${text}`;
}

const MOMENT = new Intl.DateTimeFormat("en-GB", {
  day: "numeric",
  month: "short",
  year: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});

/** The date and time where the reader is: "28 Nov 2026, 06:05:12". */
export function moment(at: number): string {
  return MOMENT.format(new Date(at * 1000));
}

/** The first characters of a version's id, which are enough to tell versions apart. */
export function shortId(id: string): string {
  return /^[0-9a-f]{64}$/.test(id) ? id.slice(0, 12) : id;
}

/** "for all" as "For all" */
export function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** The words of an API's name: "training_data" as "Training data". */
export function words(name: string): string {
  return capital(name.replaceAll("_", " "));
}

function signed(rounded: string): string {
  return rounded.startsWith("-") ? rounded.replace("-", "−") : `+${rounded}`;
}
