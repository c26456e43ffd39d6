"""How a rollout decides whether its canary may go on: pure functions over sums."""
