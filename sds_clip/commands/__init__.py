"""One module a command: `add(commands)` declares it, `run(args)` returns the exit code."""
