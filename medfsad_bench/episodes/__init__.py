"""Who is support and who is query: what an episode of a prepared set consists of."""
