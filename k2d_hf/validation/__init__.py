"""Stage 2, cross-model validation: chunks on which teacher and auxiliary disagree are marked to be dropped."""
