"""Tokens on disk: one row a user; windows and batches of them."""
