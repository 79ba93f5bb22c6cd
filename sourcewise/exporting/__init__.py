"""Models written for other programs, each checked by comparing greedy outputs, and put on the hub."""
