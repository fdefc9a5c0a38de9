"""What a person at a terminal sees: lines, bars, tables, and what Ctrl-C does."""
