"""Losses as pure functions, each with its paper. `foundation.learning` joins them."""
