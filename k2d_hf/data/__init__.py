"""Recordings and chunks: their sources, their schema, their identity, their references."""
