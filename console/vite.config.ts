import { defineConfig } from "vitest/config";

export default defineConfig({
  base: "./", // relative, so that the console works below a path of a reverse proxy
  build: {
    outDir: "../app/console",
    emptyOutDir: true,
    assetsInlineLimit: 0, // the Content-Security-Policy allows fonts from files alone
    modulePreload: { polyfill: false },
  },
  // `npm exec vite` serves the sources, and passes the console's requests on to `make run`.
  server: {
    fs: { allow: [".."] }, // the examples are pictures of demo/
    proxy: { "^/(?!src|node_modules|@|\\?|$)": "http://127.0.0.1:8000" },
  },
  test: { include: ["src/**/*.test.ts"] },
});
