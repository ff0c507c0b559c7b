"""Robust rules: how weighted rows become one update although f of them may be anything."""
