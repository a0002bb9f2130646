"""Which store the settings mean: a server where they name one, else the engine within this process."""

import math

from penchant.profile.store.base import Store
from penchant.profile.store.edge import EdgeStore
from penchant.settings import Settings

__all__ = ["open_store"]


def open_store(settings: Settings) -> Store:
    """The store that `settings` name. It is not reached before its `open` is awaited."""
    if not settings.store.url:
        return EdgeStore(settings.data_dir / "store")
    # A server's client takes a second to load, half of what a worker takes to start: not where there is no server.
    from qdrant_client import AsyncQdrantClient  # noqa: PLC0415  see above

    from penchant.profile.store.qdrant import QdrantStore  # noqa: PLC0415  likewise

    client = AsyncQdrantClient(
        url=settings.store.url,
        api_key=settings.store.api_key.get_secret_value() or None,
        grpc_port=settings.store.grpc_port,
        prefer_grpc=True,
        timeout=math.ceil(settings.store.timeout_s),
        check_compatibility=False,  # it asks by HTTP, blocking, at once; `QdrantStore.open` asks for the version
    )
    return QdrantStore(client)
