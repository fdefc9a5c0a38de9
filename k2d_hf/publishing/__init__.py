"""Publishing: the card that goes with a student."""
