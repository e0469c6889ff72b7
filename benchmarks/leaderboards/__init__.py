"""What `benchmarks.leaderboard` is made of."""
