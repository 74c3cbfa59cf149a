"""The curves of a run in a terminal, while it trains."""
