"""Published shapes of well-known models, for what can be said of them without their files."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a model as its config gives them.

    Attributes:
        layers: how many there are.
        hidden: d, the size of the residual stream.
        width: m, the intermediate size.
        vocabulary: rows of the embedding.
        parameters: as published; a test compares it with what the config builds.
        heads: of queries; a head has hidden / heads numbers.
        kept_heads: of keys and values.
        model_type: transformers' word for the architecture.
        tied: whether the head is the embedding.
    """

    layers: int
    hidden: int
    width: int
    vocabulary: int
    parameters: int
    heads: int
    kept_heads: int
    model_type: str = "llama"
    tied: bool = False

    def config(self) -> Any:
        """A config of transformers that builds it."""
        from transformers import AutoConfig

        return AutoConfig.for_model(
            self.model_type,
            num_hidden_layers=self.layers,
            hidden_size=self.hidden,
            intermediate_size=self.width,
            vocab_size=self.vocabulary,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kept_heads,
            tie_word_embeddings=self.tied,
            max_position_embeddings=131_072,
            dtype="bfloat16",
        )


SHAPES = {
    "llama-3.2-1b": Shape(16, 2048, 8192, 128256, 1_235_814_400, 32, 8, tied=True),
    "llama-3.1-8b": Shape(32, 4096, 14336, 128256, 8_030_261_248, 32, 8),
    "llama-3.1-70b": Shape(80, 8192, 28672, 128256, 70_553_706_496, 64, 8),
    "llama-3.1-405b": Shape(126, 16384, 53248, 128256, 405_853_388_800, 128, 8),
    "llama-2-7b": Shape(32, 4096, 11008, 32000, 6_738_415_616, 32, 32),
    "mistral-7b": Shape(32, 4096, 14336, 32000, 7_241_732_096, 32, 8, "mistral"),
    "qwen2-7b": Shape(28, 3584, 18944, 152064, 7_615_616_512, 28, 4, "qwen2"),
    "olmo-2-7b": Shape(32, 4096, 11008, 100352, 7_298_617_344, 32, 32, "olmo2"),
}
