"""Deployments: key material, kits, settings files, service processes and submitted runs."""
