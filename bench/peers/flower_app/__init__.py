"""A plain Flower app, after Flower's examples for Hugging Face and Opacus."""
