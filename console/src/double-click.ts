/**
 * A double click whose first click changed the page selects nothing.
 *
 * The browser would select what has come under the pointer, which may be the whole next page.
 */
export function ignoreDoubleClicksAcrossPages(): void {
  let last: EventTarget | null = null;
  addEventListener("mousedown", (event) => {
    if (event.detail > 1 && event.target !== last) event.preventDefault();
    last = event.target;
  });
}
