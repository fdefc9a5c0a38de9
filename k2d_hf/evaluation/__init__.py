"""Evaluation: teacher and student side by side, on long recordings with references."""
