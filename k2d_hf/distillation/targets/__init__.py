"""What the teacher gives once and for all epochs: soft targets, and the encoder's states."""
