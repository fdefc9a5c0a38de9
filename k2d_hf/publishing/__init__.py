"""Publishing: cards, and pushes to the Hub."""
