"""Pictures: files, entries of tar files and cells of tables, their limits, and decoding."""
