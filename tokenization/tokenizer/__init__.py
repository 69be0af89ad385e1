"""Events → tokens, by what was fitted before the split."""
