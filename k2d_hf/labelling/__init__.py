"""Stage 1, realistic pseudo-labelling: recordings in, timestamped chunks of at most 30 s out."""
