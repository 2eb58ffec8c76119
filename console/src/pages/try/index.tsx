export function TryPage() {
  return (
    <div class="page">
      <h1>Try</h1>
    </div>
  );
}
