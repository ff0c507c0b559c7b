"""What a malicious partner of a simulation does to its own rows."""
