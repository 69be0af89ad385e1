"""Several events, one token."""
