"""A few words of a model's own, to read before and after a cut."""

from typing import Any

import torch


def continuation(model: Any, tokenizer: Any, prompt: str, tokens: int = 40) -> str:
    """What ``model`` finds likeliest after ``prompt``, token by token: up to ``tokens`` tokens, as text.

    BOS stands in front where the tokenizer has one, as in packed blocks; EOS ends it early. Written out
    because ``model.generate`` takes penalties and beams from the checkpoint's generation config.
    """
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    if tokenizer.bos_token_id is not None:
        ids = [tokenizer.bos_token_id, *ids]
    device = model.get_input_embeddings().weight.device
    if device.type == "meta":  # offloaded by accelerate, which takes ids from the CPU
        device = torch.device("cpu")
    said: list[int] = []
    past = None
    with torch.no_grad():
        for _ in range(tokens):
            out = model(torch.tensor([ids], device=device), past_key_values=past, use_cache=True)
            past, token = out.past_key_values, int(out.logits[0, -1].argmax())
            if token == tokenizer.eos_token_id:
                break
            said.append(token)
            ids = [token]
    text: str = tokenizer.decode(said)
    return text
