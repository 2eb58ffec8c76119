import type { FormHTMLAttributes } from "preact";

interface Props extends Omit<FormHTMLAttributes, "onSubmit"> {
  onSubmit: () => unknown;
}

/** A form that the page sends itself. */
export function Form({ onSubmit, ...rest }: Props) {
  return (
    <form
      {...rest}
      onSubmit={(event) => {
        event.preventDefault();
        onSubmit();
      }}
    />
  );
}
