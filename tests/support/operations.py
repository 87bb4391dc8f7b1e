"""Operations as torch counts them."""

from torch.utils.flop_counter import FlopCounterMode


def counted_operations(counter: FlopCounterMode) -> int:
    """All products but those of rotary angles, which some releases of transformers make as one."""
    angles = [of for name, of in counter.get_flop_counts().items() if name.endswith("rotary_emb")]
    return int(counter.get_total_flops() - sum(sum(of.values()) for of in angles))
