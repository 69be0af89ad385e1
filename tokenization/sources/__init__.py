"""Tables in: any format, from any place, in batches."""
