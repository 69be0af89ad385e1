"""How a user declares a log, and how a declaration grows."""
