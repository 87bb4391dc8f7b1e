"""Operations and bytes of a model by part, from the shapes of its own matrices; meta tensors do."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from scarprune.models.family import read, text_config
from scarprune.models.find import family_of_model, find_sites
from scarprune.models.weights import linear_shape

PARTS = ("ffn", "attention", "vocabulary", "other")


@dataclass(frozen=True, slots=True)
class Parts:
    """One quantity, by part of the model.

    Attributes:
        ffn: feed-forward networks: what a cut makes smaller.
        attention: all other matrices of the layers, and the scores where operations are counted.
        vocabulary: the embedding and the head.
        other: norms and what else there is.
    """

    ffn: float = 0
    attention: float = 0
    vocabulary: float = 0
    other: float = 0

    @property
    def total(self) -> float:
        """All parts."""
        return self.ffn + self.attention + self.vocabulary + self.other

    @property
    def ffn_share(self) -> float:
        """The feed-forward networks' part of the whole."""
        return self.ffn / self.total if self.total else 0.0

    def as_json(self) -> dict[str, float]:
        """The parts, and their sum as ``total``."""
        return {**asdict(self), "total": self.total}


@dataclass(frozen=True, slots=True)
class Cost:
    """What a model is made of, and what a token costs.

    Attributes:
        parameters: numbers stored, tied ones once.
        weight_bytes: their bytes in the dtype that they have now.
        widths: channels of each site.
        layers: how many there are.
        matrices: operations per token of all products with weights, 2 x in x out each; the head's is apart,
            as ``vocabulary``.
        first: of these, the products that lie below the first site's channels, which a backward pass that
            stops there leaves out: attention and readers of the first layer.
        score_size: heads x head size x layers: numbers that a token meets of each token before it, twice.
        heads: of one layer's queries; 0 where the config does not say.
        kept_size: numbers of keys and values, of all layers, per token.
        cache_bytes: of the same.
        read_bytes: of weights that a single new token has to be multiplied by.
    """

    parameters: int
    weight_bytes: Parts
    widths: tuple[int, ...]
    layers: int
    matrices: Parts
    first: Parts
    score_size: int
    heads: int
    kept_size: int
    cache_bytes: int
    read_bytes: Parts

    def prefill_operations(self, length: int, *, every_logit: bool = False) -> Parts:
        """Of one text of ``length`` tokens: weights for each, scores over half of them, the head once."""
        heads = length if every_logit else 1
        return Parts(
            ffn=self.matrices.ffn * length,
            attention=self.matrices.attention * length + 4 * self.score_size * length * (length + 1) / 2,
            vocabulary=self.matrices.vocabulary * heads,
        )

    def backward_operations(self, length: int) -> Parts:
        """Of one text of ``length`` tokens back to the first site, weights frozen.

        The gradient of x in y = W x is W^T times that of y: as many operations as forward; that of W, as many
        again, is not computed. The two products of attention have two gradients each. What kernels compute
        again to save memory is not counted.
        """
        pairs = length * (length + 1) / 2
        above = (self.layers - 1) / self.layers
        return Parts(
            ffn=(self.matrices.ffn - self.first.ffn) * length,
            attention=(self.matrices.attention - self.first.attention) * length
            + 2 * 4 * self.score_size * above * pairs,
            vocabulary=self.matrices.vocabulary * length,
        )

    def decode_bytes(self, context: int, batch: int = 1) -> Parts:
        """Read for one new token of each of ``batch`` texts with ``context`` tokens before it."""
        weights = self.read_bytes
        return Parts(
            weights.ffn,
            weights.attention + batch * context * self.cache_bytes,
            weights.vocabulary,
            weights.other,
        )

    def as_json(self) -> dict[str, Any]:
        """Sizes by part, in bytes and in operations per token."""
        return {
            "parameters": self.parameters,
            "bytes": self.weight_bytes.as_json(),
            "operations_per_token": self.matrices.as_json(),
            "cache_bytes_per_token": self.cache_bytes,
            "widths": sorted(set(self.widths)),
        }


def cost_of(model: Any) -> Cost:
    """The cost of ``model`` as it is now.

    Raises:
        UnsupportedModelError: no feed-forward networks are known in it.
    """
    sites = find_sites(model)
    feed_forward = {projection.module for site in sites for projection in site.projections}
    ends = _ends(model)
    weights: dict[str, float] = dict.fromkeys(PARTS, 0)
    numbers = 0
    for name, parameter in model.named_parameters():  # tied ones come once
        part = _part(name.rpartition(".")[0], feed_forward, ends, parameter.dim())
        weights[part] += parameter.numel() * parameter.element_size()
        numbers += parameter.numel()
    operations: dict[str, float] = dict.fromkeys(PARTS, 0)
    first: dict[str, float] = dict.fromkeys(PARTS, 0)
    layer = sites[0].name.removesuffix(f".{family_of_model(model).down}")
    for name, module in model.named_modules():
        shape = linear_shape(module)
        if shape is not None:
            part = _part(name, feed_forward, ends, 2)
            operations[part] += 2.0 * shape[0] * shape[1]
            if name.startswith(f"{layer}.") and name != sites[0].down.module:
                first[part] += 2.0 * shape[0] * shape[1]
    return Cost(
        parameters=numbers,
        weight_bytes=Parts(**weights),
        widths=tuple(site.width for site in sites),
        layers=len({site.layer for site in sites}),
        matrices=Parts(**operations),
        first=Parts(**first),
        read_bytes=Parts(**{**weights, "vocabulary": _head_bytes(model)}),
        **_attention(model, len({site.layer for site in sites})),
    )


def _ends(model: Any) -> set[str]:
    """The head and all embeddings, those of positions too."""
    head = model.get_output_embeddings()
    return {name for name, m in model.named_modules() if m is head or isinstance(m, nn.Embedding)}


def _part(module: str, feed_forward: set[str], ends: set[str], dims: int) -> str:
    if module in feed_forward:
        return "ffn"
    if module in ends:
        return "vocabulary"
    return "attention" if dims >= 2 else "other"


def _head_bytes(model: Any) -> int:
    head = model.get_output_embeddings()
    return 0 if head is None else sum(p.numel() * p.element_size() for p in head.parameters())


def _attention(model: Any, layers: int) -> dict[str, int]:
    """What the config says of heads; 0 where it does not."""
    config = text_config(model.config)
    heads = _number(config, "num_attention_heads", "n_head", "n_heads", "num_heads")
    hidden = _number(config, "hidden_size", "n_embd", "d_model")
    size = _number(config, "head_dim") or (hidden // heads if heads else 0)
    kept = _number(config, "num_key_value_heads", "num_kv_heads") or heads
    itemsize = next(model.parameters()).element_size()
    both = 2 * kept * size * layers
    return {
        "score_size": heads * size * layers,
        "heads": heads,
        "kept_size": both,
        "cache_bytes": both * itemsize,
    }


def _number(config: Any, *keys: str) -> int:
    found: Iterator[Any] = (read(config, key) for key in keys)
    return next((value for value in found if isinstance(value, int) and value > 0), 0)
