"""Training a knowledge graph, and handing what was learned to the workers."""
