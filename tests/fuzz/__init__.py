"""Fuzzing of what reads files and texts of other people: a right result, or one line that says what is wrong.

`make test` runs each target for a few seconds, always with the same examples; `make fuzz` runs them for an hour.
"""
