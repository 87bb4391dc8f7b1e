"""A causal language model of an architecture nobody declares, with names that say nothing.

Its attention has as many channels as its feed-forward network, so that shapes cannot tell them apart.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput


class OddConfig(PretrainedConfig):
    model_type = "oddity"

    def __init__(
        self,
        words: int = 96,
        d: int = 32,
        breadth: int = 48,
        depth: int = 2,
        flavour: str = "gated",
        **kwargs: Any,
    ) -> None:
        self.words, self.d, self.breadth, self.depth, self.flavour = words, d, breadth, depth, flavour
        super().__init__(**kwargs)


class Blend(nn.Module):
    """Attention of one head, 48 channels wide; ``valved`` gates each of them where it stands."""

    def __init__(self, config: OddConfig) -> None:
        super().__init__()
        self.ask, self.offer, self.bring = (nn.Linear(config.d, 48) for _ in range(3))
        self.fold = nn.Linear(48, config.d)
        self.valve = nn.Linear(config.d, 48) if config.flavour == "valved" else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.ask(x)[:, None], self.offer(x)[:, None], self.bring(x)[:, None]
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)[:, 0]
        return self.fold(mixed if self.valve is None else mixed * F.sigmoid(self.valve(x)))


class Ferry(nn.Module):
    """The feed-forward network; ``normed`` has a norm across channels, so that no channel stands alone."""

    def __init__(self, config: OddConfig) -> None:
        super().__init__()
        self.flavour = config.flavour
        if config.flavour == "fused":
            self.both = nn.Linear(config.d, 2 * config.breadth)
        else:
            self.west = nn.Linear(config.d, config.breadth)
        if config.flavour in ("gated", "experts"):
            self.east = nn.Linear(config.d, config.breadth, bias=False)
        if config.flavour == "normed":
            self.norm = nn.LayerNorm(config.breadth)
        if config.flavour == "experts":
            self.experts = nn.ModuleList()
        self.home = nn.Linear(config.breadth, config.d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.flavour == "fused":
            a, b = self.both(x).chunk(2, dim=-1)
            return self.home(F.gelu(a) * b)
        if self.flavour in ("gated", "experts"):
            return self.home(self.west(x) * F.silu(self.east(x)))
        u = F.relu(self.west(x))
        return self.home(self.norm(u) if self.flavour == "normed" else u)


class Rung(nn.Module):
    def __init__(self, config: OddConfig) -> None:
        super().__init__()
        self.blend, self.ferry = Blend(config), Ferry(config)
        self.calm, self.quiet = nn.LayerNorm(config.d), nn.LayerNorm(config.d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.blend(self.calm(x))
        return x + self.ferry(self.quiet(x))


class OddModel(PreTrainedModel):
    config_class = OddConfig
    base_model_prefix = "trunk"

    def __init__(self, config: OddConfig) -> None:
        super().__init__(config)
        self.entry = nn.Embedding(config.words, config.d)
        self.ladder = nn.ModuleList(Rung(config) for _ in range(config.depth))
        self.last = nn.LayerNorm(config.d)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.entry

    def forward(self, input_ids: torch.Tensor) -> BaseModelOutput:
        x = self.entry(input_ids)
        for rung in self.ladder:
            x = rung(x)
        return BaseModelOutput(last_hidden_state=self.last(x))


class OddForCausalLM(PreTrainedModel):
    config_class = OddConfig
    base_model_prefix = "trunk"
    twist = 1.0  # of the logits; no config says so

    def __init__(self, config: OddConfig) -> None:
        super().__init__(config)
        self.trunk = OddModel(config)
        self.exit = nn.Linear(config.d, config.words, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.exit

    def forward(self, input_ids: torch.Tensor) -> CausalLMOutput:
        return CausalLMOutput(logits=self.exit(self.trunk(input_ids).last_hidden_state) * self.twist)


def odd_model(flavour: str = "gated", *, seed: int = 0) -> OddForCausalLM:
    """A random float32 model in eval mode; stock transformers can reload it in this process."""
    AutoConfig.register(OddConfig.model_type, OddConfig, exist_ok=True)
    AutoModelForCausalLM.register(OddConfig, OddForCausalLM, exist_ok=True)
    torch.manual_seed(seed)
    model = OddForCausalLM(OddConfig(flavour=flavour))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()
