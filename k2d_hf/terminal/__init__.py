"""The terminal: lines, bars, tables, and Ctrl-C."""
