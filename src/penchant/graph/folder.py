"""A trained graph as a folder: the vectors as safetensors with their names, and beside them how they came about.

Nothing in it is ever run: no pickles.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from penchant.errors import ConfigurationError
from penchant.graph.facts import Facts
from penchant.graph.train import Embedding, Ranks, Recipe, Trained, extra

__all__ = [
    "TRAINING",
    "VECTORS",
    "Training",
    "load_embedding",
    "load_training",
    "model_fingerprint",
    "save",
    "training_of",
]

VECTORS, TRAINING = "vectors.safetensors", "training.json"
MATRICES = ("vectors", "forward", "backward")


class Training(Struct, frozen=True, kw_only=True):
    """What was trained, on what, and how well it ranks.

    Attributes:
        fingerprint: of the embedding.
        source: where the facts are from.
        facts: how many were trained on, stopped by and ranked.
    """

    model: str
    fingerprint: str
    source: str
    facts: dict[str, int]
    entities: int
    relations: int
    seed: int
    recipe: Recipe
    best_epoch: int
    epochs: int
    seconds: float
    valid: Ranks
    test: Ranks | None


def training_of(found: Trained, facts: Facts, *, recipe: Recipe, seed: int) -> Training:
    """What is to be remembered of a training."""
    return Training(
        model=found.embedding.model,
        fingerprint=model_fingerprint(found.embedding),
        source=facts.source,
        facts={"train": len(facts.train), "valid": len(facts.valid), "test": len(facts.test)},
        entities=len(found.embedding.entities),
        relations=len(found.embedding.relations),
        seed=seed,
        recipe=recipe,
        best_epoch=found.best_epoch,
        epochs=found.epochs,
        seconds=round(found.seconds, 1),
        valid=found.valid,
        test=found.test,
    )


def model_fingerprint(embedding: Embedding) -> str:
    """Tells embeddings apart whose vectors must not be compared."""
    digest = hashlib.blake2b(
        msgspec.msgpack.encode((embedding.model, embedding.entities, embedding.relations)), digest_size=8
    )
    for name in MATRICES:
        digest.update(getattr(embedding, name).tobytes())
    return digest.hexdigest()


def save(folder: Path, embedding: Embedding, training: Training) -> None:
    """Writes a trained graph; what an earlier training left in the folder is replaced.

    Raises:
        ConfigurationError: the folder cannot be written.
    """
    names = {
        "model": embedding.model,
        "entities": json.dumps(embedding.entities, ensure_ascii=False),
        "relations": json.dumps(embedding.relations, ensure_ascii=False),
    }
    matrices = {name: getattr(embedding, name) for name in MATRICES}
    encoded = msgspec.json.format(msgspec.json.encode(training), indent=2)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / VECTORS).write_bytes(extra("safetensors.numpy").save(matrices, metadata=names))
        (folder / TRAINING).write_bytes(encoded + b"\n")
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be written: {error.strerror}") from None


def load_embedding(folder: Path) -> Embedding:
    """The embedding of a folder.

    Raises:
        ConfigurationError: there is none, or it is not what `penchant graph train` writes.
    """
    path = folder / VECTORS
    safetensors = extra("safetensors")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            names: dict[str, Any] = file.metadata() or {}
            matrices = {name: np.asarray(file.get_tensor(name), np.float32) for name in MATRICES}
        embedding = msgspec.convert(
            {
                "model": names["model"],
                "entities": json.loads(names["entities"]),
                "relations": json.loads(names["relations"]),
                **matrices,
            },
            Embedding,
        )
    except (OSError, KeyError, ValueError, TypeError, safetensors.SafetensorError) as error:
        raise ConfigurationError(
            f"{path} is no trained graph: {type(error).__name__}", hint="`penchant graph train` writes one."
        ) from None
    check(embedding, path)
    return embedding


def load_training(folder: Path) -> Training:
    """How the embedding of a folder came about.

    Raises:
        ConfigurationError: nothing there says so.
    """
    try:
        return msgspec.json.decode((folder / TRAINING).read_bytes(), type=Training)
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigurationError(
            f"{folder / TRAINING} cannot be read: {error}", hint="`penchant graph train` writes it."
        ) from None


def check(embedding: Embedding, path: Path) -> None:
    """Refuses matrices that do not belong together, or hold what is no number."""
    width = embedding.vectors.shape[-1]
    shapes = {
        "vectors": (len(embedding.entities), width),
        "forward": (len(embedding.relations), width),
        "backward": (len(embedding.relations), width),
    }
    for name, shape in shapes.items():
        matrix = getattr(embedding, name)
        if matrix.shape != shape or not np.isfinite(matrix).all():
            raise ConfigurationError(
                f"{path}: {name} should be finite numbers of shape {shape}, not of shape {matrix.shape}",
                hint="Train the graph again.",
            )
