"""The version, alone in a file so that packaging and stage fingerprints read it without importing anything else."""

__version__ = "0.1.0"
