"""Evaluation: how well configurations would have recommended on a recorded stream, test first and then train."""
