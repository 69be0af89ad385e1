"""A first declaration out of a log itself."""
