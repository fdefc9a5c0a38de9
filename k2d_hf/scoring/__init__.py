"""Scoring: one tokenisation into mixed tokens and phonemes, and the error rates over both; no torch in here."""
