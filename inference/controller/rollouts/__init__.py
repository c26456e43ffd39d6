"""Run rollouts: count their calls, decide, move weights, and keep what decided."""
