"""The loss of the paper (section 3.3): cross-entropy and KL, never with all logits in memory."""
