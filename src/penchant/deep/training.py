"""Learns deep fusion from a recorded stream: each like against what could have been liked instead.

For each positive event the softmax of its item's score among candidates: the items of the batch and others drawn by
`penchant.profile.ranking.weights.proposals`, each candidate's score corrected by the logarithm of its chance to be
among them (Bengio and Senecal, 2008; Yi et al., RecSys 2019). What the user has seen before is no candidate, as it is
none when recommendations are made. Steps are those of AdamW (Loshchilov and Hutter, ICLR 2019).

Training stops by likes that are later than all that is trained on, for a recommender is asked about the future.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.deep.model import DeepFusion, Form, age_buckets, initial
from penchant.encoders.base import extra
from penchant.errors import ConfigurationError
from penchant.profile.ranking.weights import proposals

__all__ = ["History", "Recipe", "Trained", "train"]

Vectors = NDArray[np.float32]
Codes = NDArray[np.int64]
Progress = Callable[[str, int, int], None]


class History(Struct, frozen=True, kw_only=True, eq=False):
    """Recorded events in time order, in codes: n of them.

    Attributes:
        user: shape (n,).
        item: shape (n,).
        time: epoch milliseconds, shape (n,).
        positive: whether the item was liked: shape (n,).
    """

    user: Codes
    item: Codes
    time: Codes
    positive: NDArray[np.bool_]


class Recipe(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How it is trained.

    Attributes:
        batch: likes at a time.
        negatives: drawn for each batch, besides its own items.
        rate: AdamW's, falling to zero by a half cosine.
        decay: AdamW's.
        drop: share of what is computed of an item that is left out at random.
        epochs: at most so many.
        held_out: share of the likes, the last ones, that training is stopped by.
    """

    batch: int = 128
    negatives: int = 128
    rate: float = 5e-3
    decay: float = 0.3
    drop: float = 0.1
    epochs: int = 5
    held_out: float = 0.1


class Trained(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model came about.

    Attributes:
        seed: of everything that was drawn.
        recipe: how.
        events: that it learned from.
        likes: among them.
        first: time of the first event, epoch milliseconds.
        last: likewise of the last.
        losses: of the likes held out, before the first epoch and after each.
    """

    seed: int
    recipe: Recipe
    events: int
    likes: int
    first: int
    last: int
    losses: tuple[float, ...]


class Examples(Struct, frozen=True, kw_only=True, eq=False):
    """Likes, and what came before them: n of them, k remembered.

    Attributes:
        event: which of the history: shape (n,).
        user: shape (n,).
        item: that was liked: shape (n,).
        liked: before, the last first; -1 where there are fewer: shape (n, k).
        ages: buckets of how long before: shape (n, k).
    """

    event: Codes
    user: Codes
    item: Codes
    liked: Codes
    ages: Codes

    def __len__(self) -> int:
        return len(self.item)

    def at(self, places: NDArray[np.int64] | slice) -> "Examples":
        """Some of them."""
        return Examples(
            event=self.event[places],
            user=self.user[places],
            item=self.item[places],
            liked=self.liked[places],
            ages=self.ages[places],
        )


def examples_of(history: History, remembered: int) -> Examples:
    """An example of each like of something that its user had not seen."""
    before: dict[int, list[tuple[int, int]]] = {}
    seen: set[tuple[int, int]] = set()
    chosen, liked, ages = [], [], []
    columns = (history.user.tolist(), history.item.tolist(), history.time.tolist(), history.positive.tolist())
    for event, (user, item, time, positive) in enumerate(zip(*columns, strict=True)):
        if positive:
            past = before.setdefault(user, [])
            if (user, item) not in seen:
                recent = past[: -remembered - 1 : -1]
                missing = remembered - len(recent)
                chosen.append(event)
                liked.append([code for code, _ in recent] + [-1] * missing)
                ages.append([time - then for _, then in recent] + [0] * missing)
            past.append((item, time))
        seen.add((user, item))
    places = np.array(chosen, np.int64)
    return Examples(
        event=places,
        user=history.user[places],
        item=history.item[places],
        liked=np.array(liked, np.int64).reshape(-1, remembered),
        ages=age_buckets(np.array(ages, np.int64).reshape(-1, remembered)),
    )


class Seen:
    """Who had seen what, and when first."""

    def __init__(self, history: History, items: int) -> None:
        self._items = items
        self._pairs, self._first = np.unique(history.user * items + history.item, return_index=True)

    def before(self, examples: Examples, candidates: Codes) -> NDArray[np.bool_]:
        """Which of c candidates the users of n examples had seen before them: shape (n, c)."""
        pairs = examples.user[:, None] * self._items + candidates
        places = np.minimum(np.searchsorted(self._pairs, pairs), len(self._pairs) - 1)
        found: NDArray[np.bool_] = (self._pairs[places] == pairs) & (self._first[places] < examples.event[:, None])
        return found


class Lesson:
    """Batches of likes with their candidates, and the loss of a model on them.

    Args:
        model: that learns.
        slices: of the catalogue, m items.
        history: that is learned from.
        learned: the likes that chances are counted from.
        recipe: how.
    """

    def __init__(
        self, model: DeepFusion, slices: Mapping[str, Vectors], history: History, learned: Examples, recipe: Recipe
    ) -> None:
        self._torch = extra("torch")
        self._model, self._recipe = model, recipe
        self._slices = model.tensors(slices)
        items = len(next(iter(slices.values())))
        self._seen = Seen(history, items)
        counts = np.bincount(learned.item, minlength=items).astype(np.float64)
        self._chances = proposals(counts)
        # Of being a candidate at all: as one of those drawn, or as what another example of the batch liked.
        expected = recipe.negatives * self._chances + recipe.batch * counts / max(len(learned), 1)
        self._corrections = np.log(-np.expm1(-expected) + np.finfo(np.float32).tiny).astype(np.float32)

    def batches(self, examples: Examples, random: np.random.Generator) -> Iterator[tuple[Examples, Codes]]:
        """Each example once, in any order, and the candidates of its batch: codes, ascending."""
        order = random.permutation(len(examples))
        for start in range(0, len(order), self._recipe.batch):
            some = examples.at(order[start : start + self._recipe.batch])
            drawn = random.choice(len(self._chances), size=self._recipe.negatives, p=self._chances)
            yield some, np.union1d(some.item, drawn)

    def loss(self, examples: Examples, candidates: Codes, *, drop: float = 0.0) -> Any:
        """The mean cross entropy of what was liked, nats: torch, a scalar."""
        torch = self._torch
        involved, places = np.unique(np.concatenate([candidates, examples.liked.ravel()]), return_inverse=True)
        codes = torch.from_numpy(np.maximum(involved, 0))  # what is not there is masked
        fused = self._model.fused({name: vectors[codes] for name, vectors in self._slices.items()}, drop=drop)
        rows = torch.from_numpy(places)
        scores = self._model.judged(
            self._model.prepared(fused[rows[: len(candidates)]]),
            fused[rows[len(candidates) :]].unflatten(0, examples.liked.shape),
            torch.from_numpy(examples.ages),
            torch.from_numpy(examples.liked >= 0),
        )
        seen = torch.from_numpy(self._seen.before(examples, candidates))
        corrected = (scores - torch.from_numpy(self._corrections[candidates])).masked_fill(seen, -torch.inf)
        return torch.nn.functional.cross_entropy(corrected, torch.from_numpy(candidates.searchsorted(examples.item)))


@contextmanager
def one_thread(torch: Any) -> Iterator[None]:
    """Computes in one thread within the block: several add up in whatever order they come to an end."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train(
    slices: Mapping[str, Vectors],
    history: History,
    *,
    seed: int,
    recipe: Recipe | None = None,
    form: Form | None = None,
    progress: Progress | None = None,
) -> tuple[DeepFusion, Trained]:
    """Trains a model.

    The same slices, history, recipe and seed give the same model on the same machine.

    Args:
        slices: by name, the items' unit vectors whitened, shape (m, d); zeros where one lacks it.
        history: to learn from.
        seed: of everything that is drawn.
        recipe: how; None: the defaults, which were tuned on the first half of MovieLens small.
        form: of the model; None: of the slices, with the defaults.
        progress: is told how far it is.

    Raises:
        ConfigurationError: torch is not installed, or there are no likes to hold out.
    """
    torch = extra("torch", what="Deep fusion")
    recipe = recipe or Recipe()
    form = form or Form(slices={name: vectors.shape[1] for name, vectors in slices.items()})
    examples = examples_of(history, form.remembered)
    border = len(examples) - int(recipe.held_out * len(examples))
    learned, held = examples.at(slice(border)), examples.at(slice(border, None))
    if not len(learned) or not len(held):
        raise ConfigurationError(
            f"{len(examples)} likes are too few to learn from", hint="Some are held back, to stop training by."
        )
    with torch.random.fork_rng(devices=[]), one_thread(torch):
        torch.manual_seed(seed)
        parameters = {name: value.requires_grad_() for name, value in initial(form, seed).items()}
        lesson = Lesson(DeepFusion(form, parameters), slices, history, learned, recipe)
        parameters, losses = taught(
            lesson, parameters, learned, held, recipe=recipe, seed=seed, tell=progress or (lambda *_: None)
        )
    return DeepFusion(form, parameters), Trained(
        seed=seed,
        recipe=recipe,
        events=len(history.item),
        likes=len(learned),
        first=int(history.time[0]),
        last=int(history.time[-1]),
        losses=losses,
    )


def taught(
    lesson: Lesson,
    parameters: Mapping[str, Any],
    learned: Examples,
    held: Examples,
    *,
    recipe: Recipe,
    seed: int,
    tell: Progress,
) -> tuple[dict[str, Any], tuple[float, ...]]:
    """The parameters that foretold best what was held out, and the losses on it; `parameters` are learned in place."""
    torch = extra("torch")
    random = np.random.default_rng(seed)
    matrices = [value for value in parameters.values() if value.ndim > 1]
    vectors = [value for value in parameters.values() if value.ndim == 1]
    optimiser = torch.optim.AdamW(
        [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}], lr=recipe.rate, weight_decay=recipe.decay
    )
    steps = recipe.epochs * -(-len(learned) // recipe.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    losses = [loss_on(lesson, held, seed)]
    best = copied(parameters)
    for epoch in range(1, recipe.epochs + 1):
        for done, (examples, candidates) in enumerate(lesson.batches(learned, random)):
            tell(f"epoch {epoch} of at most {recipe.epochs}", done * recipe.batch, len(learned))
            optimiser.zero_grad()
            lesson.loss(examples, candidates, drop=recipe.drop).backward()
            optimiser.step()
            schedule.step()
        losses.append(loss_on(lesson, held, seed))
        if losses[-1] > min(losses[:-1]):
            break
        best = copied(parameters)
    return best, tuple(losses)


def loss_on(lesson: Lesson, held: Examples, seed: int) -> float:
    """The mean loss on what is held out, with the same candidates each time."""
    with extra("torch").inference_mode():
        batches = lesson.batches(held, np.random.default_rng(seed))
        total = sum(float(lesson.loss(examples, candidates)) * len(examples) for examples, candidates in batches)
    return total / len(held)


def copied(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as they are now, that learn no more."""
    return {name: value.detach().clone() for name, value in parameters.items()}
