"""From an interest vector to a list of items: candidates, diversity, parts and reasons."""
