"""What penchant is compared with: one recommender a module, after the paper that it names.

All learn from positive events alone, and each event but once a user and item. Their parameters were chosen on the first
half of MovieLens small; docs/quality.md says how.
"""
