import type { ButtonHTMLAttributes } from "preact";

interface Props extends Omit<ButtonHTMLAttributes, "class" | "className"> {
  /** `primary`: the one thing that a form is for. `plain`: a word that can be clicked. */
  look?: "primary" | "plain" | "danger";
  /** Whether what it started is under way. It keeps its size, and cannot be pressed again. */
  busy?: boolean;
}

export function Button({ look, busy = false, disabled, children, ...rest }: Props) {
  return (
    <button
      type="button"
      {...rest}
      class={`button ${look ?? ""}`}
      disabled={disabled || busy}
      aria-busy={busy}
    >
      {children}
    </button>
  );
}
