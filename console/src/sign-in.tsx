import { useState } from "preact/hooks";
import { api, ask } from "./api/client";
import { setSession } from "./api/session";
import { useAction } from "./api/use";
import { Button } from "./components/Button";
import { ErrorNote } from "./components/ErrorNote";
import { Form } from "./components/Form";
import { TextField } from "./components/TextField";

/** Asks for an API key, which the service then keeps in a cookie that no script can read. */
export function SignIn() {
  const [key, setKey] = useState("");
  const signIn = useAction(async () => setSession(await ask(api.POST("/session", { body: { key } }))));
  return (
    <Form class="card stack sign-in" onSubmit={signIn.run}>
      <h1>Sign in</h1>
      {/* Programs that keep passwords look for a name beside them. */}
      <input type="text" autocomplete="username" value="SDS-CLIP" readOnly hidden />
      <TextField
        label="API key"
        help={
          <>
            Whoever runs the service makes one with <code>sds-clip keys create NAME</code>.
          </>
        }
        type="password"
        autocomplete="current-password"
        required
        value={key}
        onChange={setKey}
      />
      <ErrorNote error={signIn.error} />
      <Button type="submit" look="primary" busy={signIn.running} disabled={!key.trim()}>
        Sign in
      </Button>
    </Form>
  );
}
