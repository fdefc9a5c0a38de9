"""Formats of other engines, a file each: `*_format.py` declares one in `FORMAT`, and `k2d export --to` has it."""
