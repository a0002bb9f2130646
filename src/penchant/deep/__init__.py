"""Deep fusion: a small model of attention that learns from a recorded stream how an item's slices make one vector."""
