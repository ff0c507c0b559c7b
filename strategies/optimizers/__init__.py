"""Server optimisers: how the merged update moves the global model."""
