"""Recordings and chunks: where they come from, their schema, their identity, what was really said in them."""
