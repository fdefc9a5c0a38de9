"""Reporting: a run as one page; nothing in here changes the run."""
