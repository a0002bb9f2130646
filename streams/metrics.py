"""What a worker counts, for Prometheus. Labels name lanes, topics and reasons; never users or items."""

from prometheus_client import Counter, Gauge, Histogram

__all__ = [
    "BACKLOG",
    "BATCH_SECONDS",
    "CONFLICTS",
    "DEAD_LETTERS",
    "EXAMPLES",
    "EXAMPLE_SURPRISES",
    "FENCED",
    "HITS",
    "LIKES",
    "LISTED_ITEMS",
    "LISTS",
    "LOST_TO_RETENTION",
    "RECIPROCAL_RANKS",
    "RECORDS",
    "REFRESH_SECONDS",
    "RETRIES",
    "WEIGHTS_AS_OF",
]

RECORDS = Counter("penchant_records_total", "Records handled and in the store", ["lane", "topic"])
DEAD_LETTERS = Counter("penchant_dead_letters_total", "Records that could not be used", ["lane", "reason"])
LISTS = Counter("penchant_lists_total", "Recommendation lists published", ["lane"])
RETRIES = Counter("penchant_retries_total", "Times a step was tried again", ["lane", "step"])
CONFLICTS = Counter(
    "penchant_conflicts_total", "Profiles that another worker had written first: merged again", ["lane"]
)
FENCED = Counter("penchant_fenced_total", "Publications refused because the partitions had moved on", ["lane"])
LOST_TO_RETENTION = Counter(
    "penchant_records_lost_to_retention_total", "Records the broker deleted before they were applied", ["lane", "topic"]
)
BACKLOG = Gauge("penchant_backlog_records", "Records in the store whose lists are not yet published", ["lane"])
BATCH_SECONDS = Histogram(
    "penchant_batch_seconds", "Time from taking a batch to its being in the store", ["lane", "topic"]
)
REFRESH_SECONDS = Histogram("penchant_publication_seconds", "Time to rank, publish and commit", ["lane"])
LIKES = Counter(
    "penchant_likes_total", "Likes of items new to their users, of users who had been given a list", ["after"]
)
HITS = Counter("penchant_likes_listed_total", "Those of items on that list", ["after"])
RECIPROCAL_RANKS = Counter("penchant_likes_reciprocal_ranks_total", "Sum of 1 / place of those", ["after"])
LISTED_ITEMS = Gauge("penchant_listed_items", "Different items on the lists that users were given last")
EXAMPLES = Counter("penchant_examples_total", "Examples that the weights of the ranking were learned from")
EXAMPLE_SURPRISES = Counter(
    "penchant_examples_surprise_total",
    "Sum of -ln of the share that the ranking gave to what was liked in each of those",
)
WEIGHTS_AS_OF = Gauge(
    "penchant_weights_as_of_seconds", "Timestamp of the newest example behind the weights in force; 0: none is"
)
