"""One file a step, numbered; a step that was published is never edited."""
