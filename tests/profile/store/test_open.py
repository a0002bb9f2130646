"""The settings choose the store."""

from pathlib import Path

import pytest

from penchant.profile.store.base import CollectionLayout, SearchFilter, StoreUnavailable
from penchant.profile.store.edge import EdgeStore
from penchant.profile.store.open import open_store
from penchant.profile.store.qdrant import QdrantStore
from penchant.settings import load_settings

LAYOUT = CollectionLayout(name="items", vectors={"content": 4}, indexes={}, fingerprint="f1")


async def test_without_a_url_the_store_is_embedded(tmp_path: Path) -> None:
    """It lies in `store` under the data folder, which need not exist."""
    store = open_store(load_settings(data_dir=tmp_path / "new"))
    assert isinstance(store, EdgeStore)
    await store.open([LAYOUT])
    assert await store.count("items", SearchFilter()) == 0
    await store.close()
    assert (tmp_path / "new" / "store" / "items").is_dir()


async def test_with_a_url_it_is_the_server(tmp_path: Path) -> None:
    """Nothing is created on disk, and nobody is asked before the store is opened."""
    settings = load_settings(data_dir=tmp_path / "new", store={"url": "http://127.0.0.1:1", "grpc_port": 1})
    store = open_store(settings)
    assert isinstance(store, QdrantStore)
    with pytest.raises(StoreUnavailable):
        await store.open([LAYOUT])
    await store.close()
    assert not (tmp_path / "new").exists()
