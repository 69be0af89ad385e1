"""What is known about items: categories, content vectors, semantic IDs."""
