"""Local and remote files: atomic folders, shards, locks, caches, settings read from YAML."""
