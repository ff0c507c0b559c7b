"""Fair weights: how much each partner's update asks to count."""
