// Styles of pages come after these, and may change them.
import "./styles/tokens.css";
import "./styles/base.css";
import "./components/components.css";
import "./frame.css";

import { render } from "preact";
import { App } from "./app";
import { ignoreDoubleClicksAcrossPages } from "./double-click";
import { applyTheme, chosenTheme } from "./theme";

applyTheme(chosenTheme());
ignoreDoubleClicksAcrossPages();
const root = document.getElementById("console");
if (root) render(<App />, root);
