"""Embeds a knowledge graph with PyKEEN: trains on facts, stops early on held-out ones, and ranks the rest.

Three models, each with the recipe that did best in short trials on CoDEx-S, UMLS and Nations:

- *TransE* (Bordes et al., 2013): a relation is a translation, `tail = head + relation`;
- *RotatE* (Sun et al., 2019): a relation is a rotation of complex components, `tail = head * relation`;
- *ComplEx* (Trouillon et al., 2016): a relation is a complex factor, and facts score by the real part of
  `<head * relation, conj(tail)>`.

TransE and RotatE learn from sampled false facts with the self-adversarial loss of Sun et al.; ComplEx tells the true
tail from all entities, with a relation of its own for each inverse and the nuclear 3-norm to hold it back, which is
what Lacroix et al., "Canonical Tensor Decomposition for Knowledge Base Completion" (2018), found to matter.
"""

import contextlib
import importlib
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.errors import ConfigurationError
from penchant.graph.facts import Facts

__all__ = ["RECIPES", "Embedding", "ModelName", "Ranks", "Recipe", "Trained", "train"]

ModelName = Literal["transe", "complex", "rotate"]
Matrix = NDArray[np.float32]
Progress = Callable[[int, float | None], None]

CLASSES: Mapping[ModelName, str] = {"transe": "TransE", "complex": "ComplEx", "rotate": "RotatE"}
HITS = (1, 3, 10)
EVALUATED_AT_ONCE = 256


class Recipe(Struct, frozen=True, kw_only=True):
    """How a model is trained.

    Attributes:
        dimension: components of an entity's vector; complex ones for ComplEx and RotatE.
        batch: facts at a time; for ComplEx pairs of head and relation.
        rate: Adam's learning rate (ComplEx: Adagrad's).
        epochs: at most so many.
        every: epochs between looks at the held-out facts.
        patience: looks without a better rank before training ends.
        negatives: false facts for each true one; 0: all entities at once.
        margin: of the self-adversarial loss.
        decay: weight of the nuclear 3-norm.
    """

    dimension: int
    batch: int
    rate: float
    epochs: int
    every: int
    patience: int
    negatives: int = 0
    margin: float = 0.0
    decay: float = 0.0


# Measured on CoDEx-S, UMLS and Nations: docs/quality.md, "Knowledge graph", has the figures and the commands.
RECIPES: Mapping[ModelName, Recipe] = {
    "transe": Recipe(dimension=128, batch=512, rate=0.005, epochs=60, every=4, patience=3, negatives=32, margin=9.0),
    "complex": Recipe(dimension=256, batch=256, rate=0.1, epochs=60, every=3, patience=3, decay=0.2),
    "rotate": Recipe(dimension=128, batch=512, rate=0.01, epochs=60, every=4, patience=3, negatives=32, margin=6.0),
}


class Ranks(Struct, frozen=True, kw_only=True):
    """Filtered ranks of true heads and tails among all entities; ties count by their mean rank."""

    mrr: float
    hits_at_1: float
    hits_at_3: float
    hits_at_10: float


class Embedding(Struct, frozen=True, kw_only=True):
    """What was learned.

    Complex components lie as real parts, then imaginary ones. `forward` takes a head to where its tail should be and
    `backward` a tail to where its head should be: added for TransE, multiplied as complex numbers for the others.

    Attributes:
        model: which model learned it.
        entities: names, in the order of the rows of `vectors`.
        vectors: shape (entities, width).
        relations: names, in the order of the rows of `forward` and `backward`.
        forward: shape (relations, width).
        backward: shape (relations, width).
    """

    model: ModelName
    entities: tuple[str, ...]
    vectors: Matrix
    relations: tuple[str, ...]
    forward: Matrix
    backward: Matrix


class Trained(Struct, frozen=True, kw_only=True):
    """An embedding, and how it came about.

    Attributes:
        valid: ranks of the facts that training was stopped by.
        test: ranks of the facts that nothing was chosen by; None where there are none.
        best_epoch: the one whose parameters were kept.
        epochs: how many were run.
        seconds: what they took.
    """

    embedding: Embedding
    valid: Ranks
    test: Ranks | None
    best_epoch: int
    epochs: int
    seconds: float


class Best:
    """Keeps the parameters that ranked best so far, and says when to stop: PyKEEN's protocol of a stopper.

    PyKEEN's own keeps them in a pickle on disk.

    Attributes:
        best: the filtered MRR of the best look.
        epoch: of that look.
        best_epoch: what PyKEEN asks for: whenever it changes, PyKEEN writes a pickle, so it never does.

    Args:
        model: that is trained.
        rank: the filtered MRR of the held-out facts now.
        every: epochs between looks.
        patience: looks without a better rank before training ends.
        progress: told of every look.
    """

    best_epoch = None

    def __init__(self, model: Any, rank: Callable[[], float], *, every: int, patience: int, progress: Progress) -> None:
        self._model = model
        self._rank = rank
        self._every = every
        self._patience = patience
        self._progress = progress
        self._state: dict[str, Any] = {}
        self.best = -1.0
        self.epoch = 0

    def should_evaluate(self, epoch: int) -> bool:
        """Whether to look after this epoch."""
        return epoch % self._every == 0

    def should_stop(self, epoch: int) -> bool:
        """Looks, and says whether it has been too long since the best."""
        found = self._rank()
        self._progress(epoch, found)
        if found > self.best:
            self.best, self.epoch = found, epoch
            self._state = {name: value.detach().clone() for name, value in self._model.state_dict().items()}
        return epoch - self.epoch >= self._every * self._patience

    def restore(self) -> None:
        """Gives the model its best parameters back.

        Raises:
            ConfigurationError: it never had any that rank.
        """
        if not self._state:
            raise ConfigurationError(
                "Training came to numbers that rank nothing", hint="Try another --model, or a smaller --dimension."
            )
        self._model.load_state_dict(self._state)

    @staticmethod
    def get_summary_dict() -> dict[str, Any]:
        """Nothing: no training is resumed."""
        return {}


class PyKeen:
    """PyKEEN's modules, loaded when they are needed; a context manager, for what it wants in a home folder.

    Raises:
        ConfigurationError: it is not installed.
    """

    def __enter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        home = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="penchant-"))
        os.environ.setdefault("PYSTOW_HOME", home)
        self._stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # PyKEEN warns of what it does itself, and nobody here can change
        self.torch = extra("torch")
        self.models = extra("pykeen.models")
        self.losses = extra("pykeen.losses")
        self.training = extra("pykeen.training")
        self.triples = extra("pykeen.triples")
        self.evaluation = extra("pykeen.evaluation")
        for chatty in ("pykeen", "torch_max_mem"):
            logging.getLogger(chatty).setLevel(logging.ERROR)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def model(self, recipe: Recipe, name: ModelName, factory: Any, seed: int) -> Any:
        """A model that has learned nothing yet."""
        kind = getattr(self.models, CLASSES[name])
        own: dict[str, Any]
        if name == "complex":
            own = {
                "loss": self.every_fact_counts(),
                "entity_initializer": self.small,
                "relation_initializer": self.small,
                "regularizer": "powersum",
                "regularizer_kwargs": {"p": 3.0, "weight": recipe.decay},
            }
        else:
            own = {"loss": self.losses.NSSALoss(margin=recipe.margin, adversarial_temperature=1.0)}
        if name == "transe":  # as Sun et al. train it: free vectors, city-block distance
            own |= {"entity_constrainer": None, "scoring_fct_norm": 1}
        return kind(triples_factory=factory, embedding_dim=recipe.dimension, random_seed=seed, **own)

    def every_fact_counts(self) -> Any:
        """Cross entropy in which each fact weighs the same, as it does in the ranks.

        PyKEEN's own shares one weight among all tails of a head and relation.
        """
        cross_entropy = self.torch.nn.functional.cross_entropy
        base: Any = self.losses.CrossEntropyLoss

        class EveryFact(base):  # type: ignore[misc]  # PyKEEN is not looked into
            """The loss."""

            def process_lcwa_scores(self, predictions: Any, labels: Any, **_: Any) -> Any:
                """Sums over the true tails of each pair, averages over pairs."""
                return cross_entropy(predictions, labels)

        return EveryFact()

    def small(self, tensor: Any) -> Any:
        """Where ComplEx begins: near nothing, as Lacroix et al. do."""
        return self.torch.nn.init.normal_(tensor, std=1e-3)

    def loop(self, recipe: Recipe, model: Any, factory: Any) -> Any:
        """What trains a model."""
        parameters = model.parameters()
        if recipe.negatives:
            return self.training.SLCWATrainingLoop(
                model=model,
                triples_factory=factory,
                optimizer=self.torch.optim.Adam(parameters, lr=recipe.rate),
                negative_sampler="basic",
                negative_sampler_kwargs={"num_negs_per_pos": recipe.negatives},
            )
        optimizer = self.torch.optim.Adagrad(parameters, lr=recipe.rate)
        return self.training.LCWATrainingLoop(model=model, triples_factory=factory, optimizer=optimizer)


def train(
    facts: Facts, name: ModelName, *, recipe: Recipe | None = None, seed: int = 0, progress: Progress | None = None
) -> Trained:
    """Trains a model on `facts.train`, stops by `facts.valid` and ranks `facts.test`.

    The same facts, recipe and seed give the same embedding on the same machine.

    Args:
        facts: the graph.
        name: which model.
        recipe: how; by default the model's own of `RECIPES`.
        seed: of everything that is drawn.
        progress: told of every epoch, with the held-out MRR after those that are looked at.

    Raises:
        ConfigurationError: PyKEEN is not installed, or there are no facts to stop by.
    """
    recipe = recipe or RECIPES[name]
    if not facts.valid:
        raise ConfigurationError(
            "The graph is too small to hold facts back", hint="Early stopping needs facts that are not trained on."
        )
    told = progress or (lambda _epoch, _rank: None)
    with PyKeen() as pykeen:
        return trained(pykeen, facts, name, recipe=recipe, seed=seed, progress=told)


def trained(pykeen: PyKeen, facts: Facts, name: ModelName, *, recipe: Recipe, seed: int, progress: Progress) -> Trained:
    """Trains with PyKEEN at hand."""
    inverses = name == "complex"
    entities = {entity: row for row, entity in enumerate(facts.entities)}
    relations = {relation: row for row, relation in enumerate(facts.relations)}

    def factory(part: Sequence[tuple[str, str, str]], *, inverse: bool = False) -> Any:
        return pykeen.triples.TriplesFactory.from_labeled_triples(
            np.array(part, dtype=str), entity_to_id=entities, relation_to_id=relations, create_inverse_triples=inverse
        )

    train, valid = factory(facts.train, inverse=inverses), factory(facts.valid)
    pykeen.torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  PyKEEN's samplers draw from it
    model = pykeen.model(recipe, name, train, seed)
    loop = pykeen.loop(recipe, model, train)

    def ranks(of: Any, *known: Any) -> Ranks:
        evaluator = pykeen.evaluation.RankBasedEvaluator(filtered=True)
        found = evaluator.evaluate(
            model=model,
            mapped_triples=of.mapped_triples,
            additional_filter_triples=[other.mapped_triples for other in known],
            batch_size=EVALUATED_AT_ONCE,
            use_tqdm=False,
        )
        figures = {f"hits_at_{k}": found.get_metric(f"both.realistic.hits_at_{k}") for k in HITS}
        return Ranks(mrr=found.get_metric("both.realistic.inverse_harmonic_mean_rank"), **figures)

    every = min(recipe.every, recipe.epochs)  # a short training is looked at once as well
    best = Best(model, lambda: ranks(valid, train).mrr, every=every, patience=recipe.patience, progress=progress)
    started = time.perf_counter()
    losses = loop.train(
        triples_factory=train,
        num_epochs=recipe.epochs,
        batch_size=recipe.batch,
        stopper=best,
        use_tqdm=False,
        use_tqdm_batch=False,
        callbacks=[told_of_epochs(progress)],
        num_workers=0,
        pin_memory=False,
        drop_last=False,
    )
    seconds = time.perf_counter() - started
    best.restore()
    test = factory(facts.test) if facts.test else None
    return Trained(
        embedding=learned(pykeen, model, facts, name),
        valid=ranks(valid, train),
        test=None if test is None else ranks(test, train, valid),
        best_epoch=best.epoch,
        epochs=len(losses),
        seconds=seconds,
    )


def told_of_epochs(progress: Progress) -> Any:
    """PyKEEN's callback that tells of every epoch."""
    base: Any = extra("pykeen.training.callbacks").TrainingCallback

    class Told(base):  # type: ignore[misc]  # PyKEEN is not looked into
        """Tells of every epoch."""

        def post_epoch(self, epoch: int, epoch_loss: float, **_: Any) -> None:  # noqa: ARG002  PyKEEN's signature
            """Tells of one."""
            progress(epoch, None)

    return Told()


def learned(pykeen: PyKeen, model: Any, facts: Facts, name: ModelName) -> Embedding:
    """A model's parameters as an embedding."""
    with pykeen.torch.inference_mode():
        vectors = model.entity_representations[0](None).numpy()
        operators = model.relation_representations[0](None).numpy()
    if name == "complex":  # which has a relation and its inverse in turn
        forward, backward = operators[0::2], operators[1::2]
    elif name == "rotate":
        forward, backward = operators, operators.conj()
    else:
        forward, backward = operators, -operators
    return Embedding(
        model=name,
        entities=facts.entities,
        vectors=real(vectors),
        relations=facts.relations,
        forward=real(forward),
        backward=real(backward),
    )


def real(rows: NDArray[Any]) -> Matrix:
    """Rows of shape (n, d) as float32; complex ones as (n, 2 d), the real parts first."""
    if np.iscomplexobj(rows):
        rows = np.concatenate([rows.real, rows.imag], axis=1)
    return np.ascontiguousarray(rows, np.float32)


def extra(module: str) -> Any:
    """Imports a module of the optional part that trains.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigurationError(
            f"Training needs {error.name or module}, which is not installed",
            hint='Install it with: pip install "penchant[graph]"',
        ) from error


def with_changes(recipe: Recipe, **changes: int | None) -> Recipe:
    """A recipe with those values changed that are given."""
    return msgspec.structs.replace(recipe, **{name: value for name, value in changes.items() if value is not None})
