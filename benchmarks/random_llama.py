"""Random Llamas of any size: whole, in files, or as a few layers in CPU memory that are handed out in turn.

    python benchmarks/random_llama.py 8b FOLDER     writes safetensors files of one layer each

Layer i holds the weights of layer i % DISTINCT. Shapes: 1b, 8b, 70b (Llama 3's) or
hidden:intermediate:layers:vocabulary.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig

from scarprune.models.fingerprint import carry_fingerprint
from scarprune.models.layers import find_layers
from scarprune.models.shelf import MemoryShelf
from scarprune.models.skeleton import skeleton
from scarprune.models.streamed import Streamed, settle

DISTINCT = 4
SHAPES = {"1b": "2048:8192:16:128256", "8b": "4096:14336:32:128256", "70b": "8192:28672:80:128256"}


def config_of(shape: str) -> LlamaConfig:
    hidden, intermediate, layers, vocabulary = map(int, SHAPES.get(shape, shape).split(":"))
    heads = hidden // (128 if hidden >= 4096 else 64)
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8 if shape in SHAPES else heads,
        max_position_embeddings=8192,
        rope_theta=500000.0,
        tie_word_embeddings=False,
        dtype=torch.bfloat16,
    )


def outline_of(shape: str, dtype=torch.bfloat16):
    return skeleton(AutoModelForCausalLM, config_of(shape), dtype)


def random(parameter: torch.Tensor, device) -> torch.Tensor:
    """Values of a trained model's size, made on ``device``."""
    if parameter.dim() == 1:
        return torch.ones(parameter.shape, dtype=parameter.dtype, device=device)
    return torch.empty(parameter.shape, dtype=parameter.dtype, device=device).normal_(std=0.02)


def random_layers(model, device) -> list[dict[str, torch.Tensor]]:
    layers = find_layers(model)[:DISTINCT]
    return [{name: random(p, device).cpu() for name, p in layer.named_parameters()} for layer in layers]


def whole(shape: str, device):
    model = outline_of(shape, torch.bfloat16 if device.type == "cuda" else torch.float32)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, torch.nn.Parameter(random(parameter, device)))
    return model.requires_grad_(False).to(device)


def streamed(shape: str, device):
    """A model whose layers come from CPU memory: DISTINCT of them, cycled."""
    model = outline_of(shape, torch.bfloat16 if device.type == "cuda" else torch.float32)
    distinct = random_layers(model, device)
    count = len(find_layers(model))
    inside = {id(p) for layer in find_layers(model) for p in layer.parameters()}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in inside:
                setattr(
                    module, name, torch.nn.Parameter(random(parameter, device).cpu(), requires_grad=False)
                )
    settle(model, device)
    Streamed(model, MemoryShelf([distinct[i % DISTINCT] for i in range(count)]), device)
    carry_fingerprint(model, f"random {shape}")
    return model


def write(shape: str, folder: Path) -> None:
    """A checkpoint in bfloat16, one file a layer; written anew where it is not there."""
    if (folder / "model.safetensors.index.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = outline_of(shape)
    model.config.architectures = ["LlamaForCausalLM"]
    model.config.save_pretrained(folder)
    distinct, weight_map = random_layers(model, device), {}
    names = {name for name, _ in model.named_parameters()}
    for index in range(model.config.num_hidden_layers):
        prefix = f"model.layers.{index}."
        tensors = {prefix + name: tensor for name, tensor in distinct[index % DISTINCT].items()}
        weight_map |= dict.fromkeys(tensors, f"layer-{index:02}.safetensors")
        save_file(tensors, folder / f"layer-{index:02}.safetensors", metadata={"format": "pt"})
    parameters = dict(model.named_parameters())
    ends = {name: random(parameters[name], device).cpu() for name in sorted(names - set(weight_map))}
    save_file(ends, folder / "ends.safetensors", metadata={"format": "pt"})
    weight_map |= dict.fromkeys(ends, "ends.safetensors")
    index_file = folder / "model.safetensors.index.json"
    index_file.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape")
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    write(arguments.shape, arguments.folder)


if __name__ == "__main__":
    main()
