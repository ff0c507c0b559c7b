"""Attacks for simulation: what malicious partners may send."""
