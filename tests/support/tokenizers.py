"""Small real tokenizers, trained on a few sentences: byte-level BPE, and BPE whose spaces are marks."""

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SENTENCES = [
    "The sea was calm that morning, and nobody in the village had seen the boats return.",
    "She said that she would wait for him; he said that he would not be late again.",
    "It was the best of times for the keeper of the lighthouse and the worst for his brother.",
    "Möwen flogen über das Meer, naïve café — 海は静かだった。 🐟🐟",
]
BOS, EOS = "<s>", "</s>"


def byte_level(bos=True, eos=True, vocabulary=400):
    """Byte-level BPE like GPT-2's: single bytes of a character may be tokens of their own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<unk>", BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS if bos else None, eos_token=EOS if eos else None
    )


def marked_words(special=True):
    """BPE without pre-tokenizer whose spaces are marks, one put in front, as Llama 2's; adds its own BOS."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<unk>", BOS, EOS, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    tokenizer.train_from_iterator([word for text in SENTENCES[:3] for word in text.split()], trainer)
    if special:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A {EOS}", special_tokens=[(BOS, 1), (EOS, 2)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, unk_token="<unk>"
    )
