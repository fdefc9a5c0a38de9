"""Files, near and far: atomic folders, shards, locks, caches, settings read from YAML."""
