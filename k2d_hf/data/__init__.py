"""What stages hand to each other: chunks, their columns, and the sound that belongs to each (K2D, all stages)."""
