"""Probes: what a delivered model does on texts made to find its weak places."""
