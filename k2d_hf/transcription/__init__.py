"""Whisper at work: the engines behind one protocol, in workers, under time limits, on Ray."""
