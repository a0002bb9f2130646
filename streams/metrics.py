"""What a worker counts, for Prometheus. Labels name lanes, topics and reasons; never users or items."""

from prometheus_client import Counter, Gauge, Histogram

__all__ = [
    "APPLY",
    "BACKLOG",
    "BATCH_RECORDS",
    "BATCH_SECONDS",
    "CONFLICTS",
    "DEAD_LETTERS",
    "DECODE",
    "EXAMPLES",
    "EXAMPLE_SURPRISES",
    "FENCED",
    "HITS",
    "INBOX_BYTES",
    "INBOX_RECORDS",
    "LAG",
    "LIKES",
    "LISTED_ITEMS",
    "LISTS",
    "LOST_TO_RETENTION",
    "PUBLISH",
    "RANK",
    "RECIPROCAL_RANKS",
    "RECORDS",
    "REFRESH_SECONDS",
    "RETRIES",
    "STAGE_SECONDS",
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
DECODE, APPLY, RANK, PUBLISH = "decode", "apply", "rank", "publish"
STAGE_SECONDS = Histogram(
    "penchant_stage_seconds",
    "Time that each stage takes: decode and apply a batch, rank and publish lists",
    ["lane", "stage"],
)
BATCH_RECORDS = Histogram(
    "penchant_batch_records", "Records handled at once", ["lane", "topic"], buckets=[4**power for power in range(9)]
)
LAG = Gauge("penchant_lag_records", "Records of the log that have not been taken from Kafka", ["lane", "topic"])
INBOX_RECORDS = Gauge("penchant_inbox_records", "Records taken from Kafka that wait to be handled", ["lane", "topic"])
INBOX_BYTES = Gauge("penchant_inbox_bytes", "Bytes of their values", ["lane", "topic"])
REFRESH_SECONDS = Histogram(
    "penchant_publication_seconds", "Time to rank, wait for the one before, publish and commit", ["lane"]
)
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
