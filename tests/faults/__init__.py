"""The real command line, disturbed: killed at random, out of room, out of time, and fed with dirt."""
