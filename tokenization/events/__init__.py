"""Rows of a table → sound events in groups of what is simultaneous."""
