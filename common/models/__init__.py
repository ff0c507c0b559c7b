"""The network: model families, heads, the cut into frozen and trained layers, adapters, export."""
