"""From chunks to batches: rows, collator, sampler, streams."""
