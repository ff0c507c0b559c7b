"""Reading labelled text: the same code serves partners and the coordinator's held-out set."""
