"""Pre-aggregation: linear maps of rows that make a robust rule's work easier."""
