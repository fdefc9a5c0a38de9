"""Reporting: what a run did, as one page that people look at; nothing in here changes a run."""
